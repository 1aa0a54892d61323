"""Writes a comparison as an HTML file, with pictures of the images whose decision changed."""

from __future__ import annotations

from collections.abc import Sequence

from uniad_ray.archive.stores.location import Location
from uniad_ray.reporting.comparison.html import SHOWN_IMAGES, render_comparison
from uniad_ray.reporting.comparison.model import ComparisonReport
from uniad_ray.reporting.drawing.pictures import Picture, map_scale
from uniad_ray.reporting.drawing.run_pictures import draw_rows
from uniad_ray.runs.reader import RunReader


def write_comparison_page(report: ComparisonReport, readers: Sequence[RunReader], out: Location) -> None:
    """Draws the first changed images of each run with the maps of that run, and writes the page.

    Raises:
        StoreError: The file cannot be written.
    """
    pictures: dict[str, dict[str, Picture]] = {}
    for reader in readers[1:]:
        run = reader.location.uri
        pictures[run] = {}
        thresholds = {}
        keys: dict[str, list[str]] = {}
        for image in [entry for entry in report.changed_images if entry.run == run][:SHOWN_IMAGES]:
            thresholds[image.category] = image.threshold
            keys.setdefault(image.category, []).append(image.row_key)
        for category, threshold in thresholds.items():
            scores = reader.scores(["score"], categories=[category]).column("score").drop_null().to_numpy()
            pictures[run].update(draw_rows(reader, category, keys[category], map_scale(scores, threshold)))
    out.write_bytes(render_comparison(report, pictures))
