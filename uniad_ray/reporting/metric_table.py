"""Metrics as a table: a row for each category or group of anomalous images, a column for each metric."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from uniad_ray.metrics import catalogue
from uniad_ray.metrics.catalogue import CatalogueEntry
from uniad_ray.metrics.metric import ALL, ANOMALY_TYPE, MEAN_OF_CATEGORIES, Metric

_GROUPS = (ALL, ANOMALY_TYPE, "defect_kind")


@dataclass(frozen=True)
class MetricRow:
    """The metrics of one category and group; `cells` has one entry per column, None if the metric is missing."""

    category: str
    group: str
    name: str
    normal_images: int
    anomalous_images: int
    cells: tuple[Metric | None, ...]


@dataclass(frozen=True)
class MetricTable:
    """A table of metrics; every column has at least one value."""

    columns: tuple[CatalogueEntry, ...]
    rows: tuple[MetricRow, ...]


def summary_table(metrics: Iterable[Metric]) -> MetricTable:
    """One row per category, over all its anomalous images; the mean over categories comes first, if there is one."""
    table = _table(entry for entry in metrics if entry.group == ALL)
    return MetricTable(table.columns, tuple(sorted(table.rows, key=lambda row: row.category != MEAN_OF_CATEGORIES)))


def group_table(metrics: Iterable[Metric], category: str) -> MetricTable:
    """One row per group of one category: all anomalies, then anomaly types, then defect kinds."""
    own = [entry for entry in metrics if entry.category == category]
    return _table(sorted(own, key=lambda entry: _GROUPS.index(entry.group)))


def _table(metrics: Iterable[Metric]) -> MetricTable:
    known = [(column, (column.key, column.limit)) for column in catalogue.columns("report")]
    shown = {key for _, key in known}
    fused = [entry for entry in metrics if entry.expert is None and (entry.metric, entry.limit) in shown]
    valued = {(entry.metric, entry.limit) for entry in fused if entry.value is not None}
    columns = [(column, key) for column, key in known if key in valued]
    rows: dict[tuple[str, str, str], dict[tuple[str, float | None], Metric]] = {}
    for entry in fused:
        rows.setdefault((entry.category, entry.group, entry.name), {})[entry.metric, entry.limit] = entry
    return MetricTable(
        tuple(column for column, _ in columns),
        tuple(
            MetricRow(
                category=category,
                group=group,
                name=name,
                normal_images=max(entry.normal_images for entry in cells.values()),
                anomalous_images=max(entry.anomalous_images for entry in cells.values()),
                cells=tuple(cells.get(key) for _, key in columns),
            )
            for (category, group, name), cells in rows.items()
        ),
    )


@dataclass(frozen=True)
class OtherThreshold:
    """An alternative threshold, chosen with the labels."""

    title: str
    threshold: float
    recall: Metric | None


def other_thresholds(metrics: Iterable[Metric], category: str) -> tuple[OtherThreshold, ...]:
    """Thresholds of one category at the best F1 and at false-positive rates, for its fused score and all anomalies."""
    own = [entry for entry in metrics if (entry.category, entry.group, entry.expert) == (category, ALL, None)]
    recalls = {entry.limit: entry for entry in own if entry.metric == "recall_at_fpr" and entry.value is not None}
    found = []
    for entry in own:
        if entry.value is None:
            continue
        if entry.metric == "threshold_at_f1_max":
            found.append(OtherThreshold("highest F1", entry.value, None))
        elif entry.metric == "threshold_at_fpr":
            title = f"{100 * (entry.limit or 0):g} % false alarms"
            found.append(OtherThreshold(title, entry.value, recalls.get(entry.limit)))
    return tuple(found)
