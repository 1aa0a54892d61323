"""Histogram, curves and expert means, against direct counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from support.reports import labelled_table, make_metric, rows_of, score_table

from uniad_ray.reporting.distributions import CURVE_POINTS, curves, expert_contributions, score_histogram

SCORES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(SCORES, st.floats(-1e6, 1e6))
def test_bins_above_the_threshold_count_anomalous_decisions(scores: list[float], threshold: float) -> None:
    histogram = score_histogram(rows_of(score_table(scores, [None] * len(scores), threshold=threshold)))
    counts = np.array(histogram.counts["unlabelled"])
    edges = np.array(histogram.edges)
    assert len(edges) == len(counts) + 1
    assert (np.diff(edges) > 0).all()
    assert counts.sum() == len(scores)
    (position,) = np.flatnonzero(edges == threshold)
    assert counts[position:].sum() == sum(score > threshold for score in scores)


def test_groups_are_counted_separately() -> None:
    types = [None, "logical", "structural", None, None]
    labels = ["normal", "anomalous", "anomalous", "anomalous", None]
    histogram = score_histogram(rows_of(score_table([0.0, 1.0, 1.0, 1.0, 0.0], labels, anomaly_types=types)))
    assert {name: sum(counts) for name, counts in histogram.counts.items()} == {
        "normal": 1,
        "logical": 1,
        "structural": 1,
        "anomalous": 1,
        "unlabelled": 1,
    }
    assert set(score_histogram(rows_of(score_table([0.1], ["normal"]))).counts) == {"normal"}


def test_outlier_does_not_squeeze_other_scores() -> None:
    scores = [*np.linspace(0, 1, 200), 1000.0]
    histogram = score_histogram(rows_of(score_table(scores, [None] * 201)))
    counts = histogram.counts["unlabelled"]
    assert histogram.open_ended
    assert histogram.edges[-1] < 2
    assert counts[-1] >= 1
    assert sum(counts) == 201
    assert np.count_nonzero(counts) > 20


def test_curves_have_area_ends_and_operating_point() -> None:
    rows = rows_of(labelled_table())
    found = curves(rows)
    assert found is not None
    x, y = np.array(found.roc).T
    assert found.roc[0] == (0.0, 0.0)
    assert found.roc[-1] == (1.0, 1.0)
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(rows.anomalous, rows.scores))
    # One of four normal images is above the threshold, and so are three of four anomalous ones.
    assert found.operating_point.model_dump() == {"false_positive_rate": 0.25, "recall": 0.75, "precision": 0.75}
    assert (0.25, 0.75) in found.roc or (0.25, 1.0) in found.roc
    assert (0.75, 1.0) in found.precision_recall


def test_precision_without_positives_is_undefined() -> None:
    found = curves(rows_of(labelled_table(threshold=5.0)))
    assert found is not None
    assert found.operating_point.precision is None


def test_one_class_has_no_curves() -> None:
    assert curves(rows_of(score_table([0.1, 0.9], ["normal", "normal"]))) is None
    assert curves(rows_of(score_table([0.1, 0.9], ["anomalous", None]))) is None


def test_thinned_curves_keep_their_area() -> None:
    generator = np.random.default_rng(0)
    scores = np.concatenate([generator.normal(0, 1, 3000), generator.normal(1, 1, 3000)])
    rows = rows_of(score_table(scores, ["normal"] * 3000 + ["anomalous"] * 3000))
    found = curves(rows)
    assert found is not None
    assert len(found.roc) <= CURVE_POINTS
    assert len(found.precision_recall) <= CURVE_POINTS
    x, y = np.array(found.roc).T
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(rows.anomalous, rows.scores), abs=2e-3)


def test_contributions_are_means_by_label() -> None:
    rows = rows_of(score_table([1.0, 3.0, 10.0, 4.0], ["normal", "normal", "anomalous", None]))
    metrics = [
        make_metric("image_auroc", 0.9),
        make_metric("image_auroc", 0.8, expert="student"),
        make_metric("image_auroc", 0.1, expert="student", group="defect_kind", name="dent"),
    ]
    patch, student = expert_contributions(rows, metrics, {"patch": 2.0, "student": 1.0})
    assert patch.mean_calibrated == {"normal": 2.0, "anomalous": 10.0, "unlabelled": 4.0}
    assert student.mean_calibrated == {"normal": 1.0, "anomalous": 5.0, "unlabelled": 2.0}
    assert (patch.weight, student.weight) == (2.0, 1.0)
    assert patch.image_auroc is None
    assert student.image_auroc == metrics[1]
    assert expert_contributions(rows, metrics, None)[0].weight is None
