"""`uniad-ray evaluate`: evaluates a run against labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from uniad_ray import verbs
from uniad_ray.cli.options import (
    address_option,
    confidence_option,
    marks_option,
    pixel_workers_option,
    print_report,
    reporting,
    resamples_option,
)
from uniad_ray.cli.tables import percent, table

if TYPE_CHECKING:
    from uniad_ray.evaluation.run import EvaluationReport
    from uniad_ray.metrics.metric import Metric


@click.command()
@click.argument("run")
@marks_option
@resamples_option
@confidence_option
@pixel_workers_option
@address_option
@reporting
def evaluate(as_json: bool, **options: Any) -> None:
    """Evaluate the scores of RUN against labels, reviewers' marks and masks; print and store the metrics."""
    print_report(verbs.evaluate(**options), as_json, as_text)


def as_text(report: EvaluationReport) -> str:
    """Metrics of a run in per cent, one line per category and group; the first metric with its interval."""
    fused = [entry for entry in report.metrics if entry.expert is None]
    lines = [_metrics(fused)] if fused else []
    lines += _decisions(fused)
    lines += _experts(report.metrics)
    lines += [f"note: {note}" for note in report.notes]
    if report.random_weights:
        lines.append("WARNING: a network had random weights; the metrics are meaningless")
    lines.append(f"{report.run}: run {report.run_id}, intervals {100 * report.confidence:g} %")
    return "\n".join(lines)


def _metrics(metrics: Sequence[Metric]) -> str:
    from uniad_ray.metrics.catalogue import columns
    from uniad_ray.reporting.wording import MISSING, category_name, group_name, metric_value

    shown = columns("terminal")
    found: dict[tuple[str, str, str], dict[tuple[str, float | None], Metric]] = {}
    for entry in metrics:
        found.setdefault((entry.category, entry.group, entry.name), {})[entry.metric, entry.limit] = entry
    rows = []
    for own in found.values():
        cells = [own.get((column.key, column.limit)) for column in shown]
        values = [MISSING if cell is None else metric_value(cell) for cell in cells]
        first = next(iter(own.values()))
        values[0] += "" if cells[0] is None else _interval(cells[0])
        images = (first.normal_images, first.anomalous_images)
        rows.append((category_name(first.category), group_name(first), *images, *values))
    titles = (column.short_title for column in shown)
    return table(("category", "anomalies", "normal", "anomalous", *titles), rows)


def _interval(entry: Metric) -> str:
    return "" if entry.low is None or entry.high is None else f" ({percent(entry.low)}-{percent(entry.high)})"


def _decisions(metrics: Sequence[Metric]) -> list[str]:
    """False alarms and misses of each category at its threshold, as sentences."""
    from uniad_ray.metrics.metric import ALL, MEAN_OF_CATEGORIES

    every = {(entry.category, entry.metric): entry for entry in metrics if entry.group == ALL}
    lines = []
    for category in dict.fromkeys(entry.category for entry in metrics if entry.category != MEAN_OF_CATEGORIES):
        alarms, recall = every.get((category, "false_positive_rate")), every.get((category, "recall"))
        if alarms is None or recall is None or alarms.value is None or recall.value is None:
            continue
        lines.append(
            f"{category}: at the threshold, {round(alarms.value * alarms.normal_images)} of {alarms.normal_images} "
            f"normal images are false alarms and {round((1 - recall.value) * recall.anomalous_images)} of "
            f"{recall.anomalous_images} anomalous images are missed"
        )
    return lines


def _experts(metrics: Sequence[Metric]) -> list[str]:
    """Image AUROC of each expert alone, if there are several."""
    from uniad_ray.metrics.metric import ALL, ANOMALY_TYPE

    alone = [
        entry
        for entry in metrics
        if entry.expert is not None and entry.metric == "image_auroc" and entry.group in (ALL, ANOMALY_TYPE)
    ]
    names = list(dict.fromkeys(entry.expert for entry in alone))
    if len(names) < 2:
        return []
    rows: dict[tuple[str, str], dict[str | None, Metric]] = {}
    for entry in alone:
        rows.setdefault((entry.category, entry.name), {})[entry.expert] = entry
    return [
        "image AUROC of each expert alone:",
        table(
            ("category", "anomalies", *(str(name) for name in names)),
            [
                (category, group, *(percent(found[name].value) if name in found else "-" for name in names))
                for (category, group), found in rows.items()
            ],
        ),
    ]
