"""Writes the page of the last nights from their records."""

from __future__ import annotations

from urllib.parse import quote

from uniad_ray.archive.stores.location import Location
from uniad_ray.nights.folder import PAGE, Night, Nights
from uniad_ray.nights.model import Evaluated, NightSummary


def write_page(work: Location, nights: Nights, most: int) -> None:
    """Writes `nights.html`.

    Args:
        work: Folder of the nights.
        nights: The nights.
        most: Nights to show.
    """
    # Matplotlib takes a second to import.
    from uniad_ray.reporting.nights.html import render_nights

    summaries: list[NightSummary] = nights.summaries(most)
    evaluated = {summary.night: Night(work, summary.night).read("evaluation", Evaluated) for summary in summaries}
    found = {name: record for name, record in evaluated.items() if record is not None and record.report is not None}
    reports = {name: f"runs/{quote(name)}/report/report.html" for name in found if _has_report(work, name)}
    page = render_nights(
        summaries,
        work=work.uri,
        reports=reports,
        image_auroc={name: record.image_auroc for name, record in found.items()},
    )
    (work / PAGE).write_bytes(page)


def _has_report(work: Location, name: str) -> bool:
    return (Night(work, name).run / "report/report.html").exists()
