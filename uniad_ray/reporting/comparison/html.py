"""The comparison of runs as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from uniad_ray.metrics import catalogue
from uniad_ray.metrics.catalogue import CatalogueEntry
from uniad_ray.metrics.difference import Difference
from uniad_ray.metrics.metric import ALL, MEAN_OF_CATEGORIES, MEAN_OF_TYPES
from uniad_ray.reporting.comparison.model import ComparisonReport
from uniad_ray.reporting.drawing.pictures import Picture
from uniad_ray.reporting.html import MAX_CATEGORY_ROWS, MAX_NOTES, render_page

SHOWN_IMAGES: Final = 24
"""Maximum number of changed images with a picture, per run."""


def render_comparison(report: ComparisonReport, pictures: Mapping[str, Mapping[str, Picture]]) -> bytes:
    """Renders a comparison; equal comparisons give equal bytes.

    Args:
        report: The content.
        pictures: Layers of the changed images to show, by run and row key.
    """
    return render_page(
        "comparison.html.j2",
        report=report,
        compared=[_compared(report, index, pictures) for index in range(1, len(report.runs))],
        max_notes=MAX_NOTES,
    )


class _Row(NamedTuple):
    """Differences of one category and group, in the order of the columns."""

    category: str
    group: str
    name: str
    cells: list[Difference | None]


def _compared(report: ComparisonReport, index: int, pictures: Mapping[str, Mapping[str, Picture]]) -> dict[str, Any]:
    run = report.runs[index]
    drawn = pictures.get(run.run, {})
    columns, rows = _table([entry for entry in report.differences if entry.run == run.run])
    return {
        "number": index + 1,
        "run": run,
        "changes": next(entry for entry in report.changes if entry.run == run.run),
        "columns": columns,
        "rows": rows[:MAX_CATEGORY_ROWS],
        "hidden_rows": len(rows[MAX_CATEGORY_ROWS:]),
        "images": [entry for entry in report.changed_images if entry.run == run.run and entry.row_key in drawn],
        "pictures": drawn,
    }


def _table(differences: Sequence[Difference]) -> tuple[list[CatalogueEntry], list[_Row]]:
    """The columns with at least one difference, and one row per category and group."""
    known = {
        (entry.category, entry.group, entry.name, entry.metric, entry.limit): entry
        for entry in differences
        if entry.group != "defect_kind" and entry.difference is not None
    }
    there = {key[3:] for key in known}
    columns = [entry for entry in catalogue.columns("comparison") if (entry.key, entry.limit) in there]
    groups = sorted(
        dict.fromkeys(key[:3] for key in known),
        key=lambda group: (group[0] != MEAN_OF_CATEGORIES, group[0], group[1] != ALL, group[2] == MEAN_OF_TYPES),
    )
    rows = [_Row(*group, [known.get((*group, entry.key, entry.limit)) for entry in columns]) for group in groups]
    return columns, rows
