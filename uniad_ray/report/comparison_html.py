"""The comparison of runs as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from uniad_ray.metrics.metric import ALL, MEAN_OF_CATEGORIES
from uniad_ray.report.comparison import ComparisonReport, Difference
from uniad_ray.report.html import MAX_CATEGORY_ROWS, MAX_NOTES, render_page
from uniad_ray.report.pictures import Picture

SHOWN_IMAGES: Final = 24
"""Changed images with a picture, for each run."""

TITLES: Final = (
    ("image_auroc", None, "Image AUROC"),
    ("image_average_precision", None, "Average precision"),
    ("image_f1_max", None, "F1-max"),
    ("recall", None, "Recall at the threshold"),
    ("false_positive_rate", None, "False alarms at the threshold"),
    ("pixel_auroc", None, "Pixel AUROC"),
    ("pixel_aupro", 0.3, "AUPRO up to 0.3"),
    ("pixel_spro", 0.05, "sPRO up to 0.05"),
)


def render_comparison(report: ComparisonReport, pictures: Mapping[str, Mapping[str, Picture]]) -> bytes:
    """Renders a comparison; the same comparison gives the same bytes.

    Args:
        report: What it says.
        pictures: Layers by run and row key, of the changed images that are shown.
    """
    return render_page(
        "comparison.html.j2",
        report=report,
        compared=[_compared(report, index, pictures) for index in range(1, len(report.runs))],
        max_notes=MAX_NOTES,
    )


def _compared(report: ComparisonReport, index: int, pictures: Mapping[str, Mapping[str, Picture]]) -> dict[str, Any]:
    run = report.runs[index]
    drawn = pictures.get(run.run, {})
    return {
        "number": index + 1,
        "run": run,
        "changes": next(entry for entry in report.changes if entry.run == run.run),
        "tables": list(_tables([entry for entry in report.differences if entry.run == run.run])),
        "images": [entry for entry in report.changed_images if entry.run == run.run and entry.row_key in drawn],
        "pictures": drawn,
    }


def _tables(differences: list[Difference]) -> Any:
    """For each figure its rows: the mean, then categories and anomaly types."""
    for metric, limit, title in TITLES:
        rows = [
            entry
            for entry in differences
            if (entry.metric, entry.limit) == (metric, limit)
            and entry.group != "defect_kind"
            and entry.difference is not None
        ]
        rows.sort(key=lambda entry: (entry.category != MEAN_OF_CATEGORIES, entry.category, entry.group != ALL))
        if rows:
            yield {"title": title, "rows": rows[:MAX_CATEGORY_ROWS], "total": len(rows)}
