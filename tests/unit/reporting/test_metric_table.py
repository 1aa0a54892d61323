"""Tables of metrics."""

from __future__ import annotations

import pytest
from support.reports import make_metric

from uniad_ray.reporting.metric_table import group_table, other_thresholds, summary_table
from uniad_ray.reporting.wording import group_name


def test_columns_have_values_and_a_fixed_order() -> None:
    metrics = [
        make_metric("pixel_spro", 0.4, limit=0.05),
        make_metric("pixel_spro", 0.3, limit=0.01),
        make_metric("pixel_aupro", None, limit=0.3),
        make_metric("image_f1_max", 0.9),
        make_metric("image_auroc", 0.8),
        make_metric("false_positive_rate", 0.1),
        make_metric("image_auroc", 0.7, expert="patch"),
    ]
    table = group_table(metrics, "part")
    assert [column.title for column in table.columns] == [
        "Image AUROC",
        "F1\N{NON-BREAKING HYPHEN}max",
        "sPRO@0.01",
        "sPRO@0.05",
    ]
    (row,) = table.rows
    assert [cell.value if cell else None for cell in row.cells] == [0.8, 0.9, 0.3, 0.4]
    assert (row.normal_images, row.anomalous_images) == (40, 20)


def test_missing_metric_is_a_gap() -> None:
    metrics = [
        make_metric("image_auroc", 0.8),
        make_metric("pixel_auroc", 0.9),
        make_metric("image_auroc", 0.7, group="defect_kind", name="dent"),
    ]
    table = group_table(metrics, "part")
    assert [(row.group, row.name) for row in table.rows] == [("all", "all"), ("defect_kind", "dent")]
    assert table.rows[1].cells == (metrics[2], None)


def test_groups_are_sorted_and_named() -> None:
    groups = [("defect_kind", "dent"), ("all", "all"), ("anomaly_type", "logical"), ("anomaly_type", "mean")]
    table = group_table([make_metric("image_auroc", 0.8, group=group, name=name) for group, name in groups], "part")
    assert [group_name(row) for row in table.rows] == [
        "all anomalies",
        "logical anomalies",
        "mean of anomaly types",
        "dent",
    ]


def test_summary_starts_with_the_mean() -> None:
    metrics = [
        make_metric("image_auroc", 0.9, category="b"),
        make_metric("image_auroc", 0.8, category="*"),
        make_metric("image_auroc", 0.9, category="b", group="defect_kind", name="dent"),
        make_metric("image_auroc", 0.7, category="a"),
    ]
    assert [row.category for row in summary_table(metrics).rows] == ["*", "b", "a"]


def test_without_metrics_there_is_no_table() -> None:
    assert summary_table([]).columns == summary_table([]).rows == ()
    assert summary_table([make_metric("image_auroc", None)]).columns == ()


def test_other_thresholds_come_with_their_recall() -> None:
    metrics = [
        make_metric("threshold_at_f1_max", 2.5),
        make_metric("threshold_at_fpr", 3.5, limit=0.01),
        make_metric("recall_at_fpr", 0.7, limit=0.01),
        make_metric("threshold_at_fpr", 1.5, limit=0.05, group="defect_kind", name="dent"),
        make_metric("threshold_at_f1_max", 9.0, category="other"),
    ]
    best, at_rate = other_thresholds(metrics, "part")
    assert (best.title, best.threshold, best.recall) == ("highest F1", 2.5, None)
    assert (at_rate.title, at_rate.threshold) == ("1 % false alarms", 3.5)
    assert at_rate.recall is not None
    assert at_rate.recall.value == pytest.approx(0.7)
