"""The last nights as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from uniad_ray.metrics.wording import count
from uniad_ray.nights.model import NightSummary
from uniad_ray.reporting import wording
from uniad_ray.reporting.drawing import charts
from uniad_ray.reporting.html import MAX_CATEGORY_ROWS, render_page

MAX_ALARMS: Final = 100
"""Maximum number of alarms on the page; the records of the nights have all."""


def render_nights(
    nights: Sequence[NightSummary],
    *,
    work: str,
    reports: Mapping[str, str],
    image_auroc: Mapping[str, Mapping[str, float]],
) -> bytes:
    """Renders the page; equal nights give equal bytes.

    Args:
        nights: The nights, oldest first.
        work: URI of their folder.
        reports: Address of the report by night, relative to the page; nights without one are absent.
        image_auroc: Image AUROC by night and category, for nights with labels.
    """
    newest = list(reversed(nights))
    every = sorted({name for night in nights for name in night.categories})
    # Those with an alarm must not be hidden by the limit.
    concerned = {alarm.category for night in nights for alarm in night.alarms}
    categories = sorted(sorted(every, key=lambda name: name not in concerned)[:MAX_CATEGORY_ROWS])
    alarms = [(night, alarm) for night in newest for alarm in night.alarms]
    return render_page(
        "nights.html.j2",
        nights=newest,
        work=work,
        reports=reports,
        with_captions=any(night.captions is not None for night in nights),
        charts=_charts(nights) if nights else [],
        alarms=alarms[:MAX_ALARMS],
        hidden_alarms=len(alarms[MAX_ALARMS:]),
        hidden_categories=len(every) - len(categories),
        categories=[_category(name, newest, image_auroc) for name in categories],
    )


def _charts(nights: Sequence[NightSummary]) -> list[dict[str, Any]]:
    names, alarmed = [night.night for night in nights], [bool(night.alarms) for night in nights]
    rejected = [_share(night.anomalous, night.images - night.errors) for night in nights]
    failed = [_share(night.errors + night.rejected_files, night.images + night.rejected_files) for night in nights]
    drawn = []
    for identity, title, shares in (
        ("rejected", "Called anomalous", rejected),
        ("failed", "Could not be ingested or scored", failed),
    ):
        latest = next((share for share in reversed(shares) if share is not None), None)
        caption = f"{title}, share of the new images. Last night with images: {wording.percent(latest)} %."
        label = f"{caption} {count(len(nights), 'night')}, {count(sum(alarmed), 'night')} with alarms."
        svg = charts.nights_chart(names, shares, alarmed, identity=identity, label=label)
        drawn.append({"title": title, "svg": svg, "caption": caption})
    return drawn


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _category(
    name: str, newest: Sequence[NightSummary], image_auroc: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """The nights of one category, newest first."""
    return {
        "name": name,
        "rows": [
            {
                "night": night.night,
                "counts": night.categories[name],
                "medians": night.medians.get(name, {}),
                "image_auroc": image_auroc.get(night.night, {}).get(name),
                "changed": [
                    finding.expert or finding.measure for finding in night.findings if finding.category == name
                ],
            }
            for night in newest
            if name in night.categories
        ],
    }
