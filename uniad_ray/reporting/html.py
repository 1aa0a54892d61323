"""The report as one self-contained HTML file: style, charts and pictures are embedded, and there is no script."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from jinja2 import Environment
from markupsafe import Markup

from uniad_ray.metrics.wording import count
from uniad_ray.reporting import wording
from uniad_ray.reporting.drawing import charts
from uniad_ray.reporting.drawing.pictures import Picture, heat_legend
from uniad_ray.reporting.environment import make_environment
from uniad_ray.reporting.metric_table import group_table, other_thresholds, summary_table
from uniad_ray.reporting.model import CategoryDetail, CategoryResult, Network, Report

MAX_CATEGORY_ROWS: Final = 300
"""Maximum number of categories in a table; JSON and Parquet list all."""
MAX_GROUP_ROWS: Final = 40
MAX_NOTES: Final = 50
MAX_REASONS: Final = 6


def render_html(report: Report, pictures: Mapping[str, Picture]) -> bytes:
    """Renders a report; equal reports give equal bytes.

    Args:
        report: The content.
        pictures: Layers of each image in the galleries, by row key.
    """
    return render_page(
        "report.html.j2",
        report=report,
        pictures=pictures,
        shown_categories=report.categories[:MAX_CATEGORY_ROWS],
        summary=summary_table(report.metrics),
        details=[_detail(report, detail, index, pictures) for index, detail in enumerate(report.details)],
        detail_index={detail.category: index for index, detail in enumerate(report.details)},
        max_category_rows=MAX_CATEGORY_ROWS,
        max_group_rows=MAX_GROUP_ROWS,
        max_notes=MAX_NOTES,
        max_reasons=MAX_REASONS,
        networks=_networks(report),
        legend=heat_legend(),
    )


def render_page(template: str, **context: Any) -> bytes:
    """Renders a template that extends `base.html.j2`, as UTF-8.

    The content security policy allows only the style sheet of the page and images as data URIs.
    """
    style = resources.files("uniad_ray.reporting").joinpath("templates/report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    page = _environment().get_template(template)
    # The style sheet is part of this package, so it is safe; escaping would change its digest.
    return page.render(style=Markup(style), policy=policy, **context).encode()  # noqa: S704


@functools.cache
def _environment() -> Environment:
    environment = make_environment(autoescape=True)
    environment.filters.update(breakable=_breakable, data_uri=_data_uri)
    return environment


def _breakable(text: str) -> Markup:
    """Allows line breaks after `/` and `_`, and before `@`."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_])|(?=@)", text))


def _data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _networks(report: Report) -> list[tuple[Network, int]]:
    """Networks with the number of categories that use each, most used first."""
    used = Counter(
        network for entry in report.categories if entry.lineage is not None for network in entry.lineage.networks
    )
    return sorted(used.items(), key=lambda entry: (-entry[1], entry[0].name))[:MAX_CATEGORY_ROWS]


def _detail(report: Report, detail: CategoryDetail, index: int, pictures: Mapping[str, Picture]) -> dict[str, Any]:
    shown = [pictures[image.row_key] for section in detail.gallery for image in section.images]
    result = next(entry for entry in report.categories if entry.category == detail.category)
    return {
        "index": index,
        "detail": detail,
        "result": result,
        "metrics": group_table(report.metrics, detail.category),
        "other_thresholds": other_thresholds(report.metrics, detail.category),
        "charts": _charts(detail, result, index),
        "has_heat_maps": any(picture.thumbnail and picture.heat_map for picture in shown),
        "has_outlines": any(picture.thumbnail and picture.outline for picture in shown),
    }


def _charts(detail: CategoryDetail, result: CategoryResult, index: int) -> list[dict[str, Any]]:
    threshold = detail.map_scale.threshold
    images = sum(sum(counts) for counts in detail.histogram.counts.values())
    caption = f"Scores of {count(images, 'image')}. Images to the right of the line are called anomalous."
    if detail.histogram.open_ended:
        caption += " The last bar also counts all higher scores."
    label = f"Histogram of scores, threshold {wording.score(threshold)}. {caption}"
    drawn = [
        {
            "title": "Scores",
            "svg": charts.histogram_chart(detail.histogram, threshold, identity=f"scores-{index}", label=label),
            "caption": caption,
        }
    ]
    if detail.curves is None:
        return drawn
    point = detail.curves.operating_point
    roc_caption = (
        f"At the threshold, {wording.percent(point.recall)} % of the anomalous images are found, and "
        f"{wording.percent(point.false_positive_rate)} % of the normal images are false alarms."
    )
    drawn.append(
        {
            "title": "ROC",
            "svg": charts.roc_chart(detail.curves, identity=f"roc-{index}", label=f"ROC curve. {roc_caption}"),
            "caption": roc_caption,
        }
    )
    if point.precision is None:
        precision_caption = "At the threshold, no image is called anomalous."
    else:
        precision_caption = (
            f"At the threshold, {wording.percent(point.precision)} % of the images called anomalous are anomalous. "
            f"In all, {result.anomalous_images:,} of {result.normal_images + result.anomalous_images:,} images are."
        )
    drawn.append(
        {
            "title": "Precision and recall",
            "svg": charts.precision_recall_chart(
                detail.curves, identity=f"precision-{index}", label=f"Precision-recall curve. {precision_caption}"
            ),
            "caption": precision_caption,
        }
    )
    return drawn
