from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from uniad_ray.metrics.image import (
    Confusion,
    average_precision,
    confusion,
    f1_max,
    image_auroc,
    labelled_scores,
    precision_recall_curve,
    roc_curve,
    threshold_at_false_positive_rate,
)

LABELS = np.array([0, 0, 1, 1])
SCORES = np.array([0.1, 0.4, 0.35, 0.4])
ONE_CLASS = [[0, 0], [1, 1], []]

# Few distinct values, to produce ties.
images = st.lists(st.tuples(st.booleans(), st.integers(-3, 3).map(lambda value: value / 4)), min_size=1, max_size=30)


def unzip(pairs: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in pairs]), np.array([score for _, score in pairs])


def decisions_by_threshold(pairs: list[tuple[bool, float]]) -> list[Confusion]:
    """Counts at each threshold, from the highest (nothing is anomalous) to the lowest."""
    counted = []
    for threshold in sorted({score for _, score in pairs} | {-math.inf}, reverse=True):
        called = [(label, score > threshold) for label, score in pairs]
        counted.append(
            Confusion(
                found=called.count((True, True)),
                missed=called.count((True, False)),
                false_positives=called.count((False, True)),
                true_negatives=called.count((False, False)),
            )
        )
    return counted


def has_both_classes(pairs: list[tuple[bool, float]]) -> bool:
    return len({label for label, _ in pairs}) == 2


class TestImageAuroc:
    def test_by_hand(self) -> None:
        # Of the four pairs, 0.35 > 0.1, 0.4 > 0.1, 0.4 ties with 0.4, and 0.35 < 0.4.
        assert image_auroc(LABELS, SCORES) == (1 + 1 + 1 / 2 + 0) / 4
        assert image_auroc(LABELS.astype(bool), -SCORES) == (0 + 0 + 1 / 2 + 1) / 4

    @given(images)
    def test_is_the_fraction_of_ordered_pairs(self, pairs: list[tuple[bool, float]]) -> None:
        assume(has_both_classes(pairs))
        in_order = [
            (anomalous > normal) + (anomalous == normal) / 2
            for label, anomalous in pairs
            if label
            for other, normal in pairs
            if not other
        ]
        assert image_auroc(*unzip(pairs)) == pytest.approx(sum(in_order) / len(in_order), abs=1e-12)


class TestAveragePrecision:
    def test_by_hand(self) -> None:
        # From 0.4 down: recall 1/2 at precision 1/2, then recall 1 at precision 2/3.
        assert average_precision(LABELS, SCORES) == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 2 / 3)

    @given(images)
    def test_is_precision_weighted_by_recall_gain(self, pairs: list[tuple[bool, float]]) -> None:
        assume(has_both_classes(pairs))
        expected, recall = 0.0, 0.0
        for counted in decisions_by_threshold(pairs)[1:]:
            assert counted.recall is not None
            assert counted.precision is not None
            expected += (counted.recall - recall) * counted.precision
            recall = counted.recall
        assert average_precision(*unzip(pairs)) == pytest.approx(expected, abs=1e-12)


class TestF1Max:
    def test_by_hand(self) -> None:
        # Calling three of four anomalous finds both: F1 = 2 * 2 / (3 + 2); the threshold is between 0.1 and 0.35.
        best = f1_max(LABELS, SCORES)
        assert best is not None
        assert best.value == 0.8
        assert best.threshold == pytest.approx(0.225)

    def test_highest_of_equal_thresholds_wins(self) -> None:
        # 3 alone: 2 / (1 + 2); all four: 4 / (4 + 2).
        best = f1_max(np.array([1, 0, 0, 1]), np.array([3.0, 2.0, 1.0, 0.0]))
        assert best == (pytest.approx(2 / 3), 2.5)

    def test_calling_all_sets_threshold_below_lowest_score(self) -> None:
        best = f1_max(np.array([1, 0, 1]), np.array([7.0, 7.0, 7.0]))
        assert best == (0.8, np.nextafter(7.0, 0.0))

    def test_threshold_separates_neighbouring_floats(self) -> None:
        low = np.nextafter(1.0, 2.0)
        scores = np.array([low, np.nextafter(low, 2.0)])
        best = f1_max(np.array([0, 1]), scores)
        assert best is not None
        assert (scores > best.threshold).tolist() == [False, True]

    @given(images)
    def test_no_threshold_is_better(self, pairs: list[tuple[bool, float]]) -> None:
        assume(has_both_classes(pairs))
        best = f1_max(*unzip(pairs))
        assert best is not None

        def f1(counted: Confusion) -> float:
            return 2 * counted.found / (2 * counted.found + counted.missed + counted.false_positives)

        assert best.value == pytest.approx(max(map(f1, decisions_by_threshold(pairs))), abs=1e-12)
        assert best.value == pytest.approx(f1(confusion(*unzip(pairs), best.threshold)), abs=1e-12)


class TestThresholdAtFalsePositiveRate:
    @pytest.mark.parametrize(
        ("rate", "threshold"), [(0.0, 4.0), (0.24, 4.0), (0.25, 3.0), (0.5, 2.0), (0.74, 2.0), (0.99, 1.0)]
    )
    def test_by_hand(self, rate: float, threshold: float) -> None:
        assert threshold_at_false_positive_rate(np.array([3.0, 1.0, 4.0, 2.0]), rate) == threshold

    def test_rate_of_whole_images_is_used_fully(self) -> None:
        # In floats 0.29 * 100 is below 29.
        assert threshold_at_false_positive_rate(np.arange(100.0), 0.29) == 70.0

    @given(
        st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30),
        st.floats(0, 1, exclude_max=True),
    )
    def test_is_the_lowest_threshold_that_keeps_the_rate(self, scores: list[float], rate: float) -> None:
        threshold = threshold_at_false_positive_rate(np.array(scores), rate)
        above = [sum(score > limit for score in scores) / len(scores) for limit in (threshold, threshold - 1e-9)]
        assert above[0] <= rate < above[1]

    @pytest.mark.parametrize(
        ("scores", "rate"), [([], 0.1), ([1.0, math.nan], 0.1), ([[1.0]], 0.1), ([1.0], 1.0), ([1.0], -0.1)]
    )
    def test_refused(self, scores: list[float], rate: float) -> None:
        with pytest.raises(ValueError, match="must be"):
            threshold_at_false_positive_rate(np.array(scores), rate)


class TestConfusion:
    def test_score_at_the_threshold_is_normal(self) -> None:
        counted = confusion(LABELS, SCORES, 0.35)
        assert counted == Confusion(found=1, missed=1, false_positives=1, true_negatives=1)
        assert (counted.recall, counted.false_positive_rate, counted.precision) == (1 / 2, 1 / 2, 1 / 2)

    def test_fractions_of_nothing_are_undefined(self) -> None:
        assert confusion(np.array([0]), np.array([1.0]), 2.0).recall is None
        assert confusion(np.array([1]), np.array([1.0]), 2.0).false_positive_rate is None
        assert confusion(np.array([1]), np.array([1.0]), 2.0).precision is None


class TestCurves:
    def test_roc_by_hand(self) -> None:
        curve = roc_curve(LABELS, SCORES)
        assert curve is not None
        assert curve.x.tolist() == [0, 1 / 2, 1 / 2, 1]
        assert curve.y.tolist() == [0, 1 / 2, 1, 1]

    def test_precision_recall_by_hand(self) -> None:
        curve = precision_recall_curve(LABELS, SCORES)
        assert curve is not None
        assert curve.x.tolist() == [0, 1 / 2, 1, 1]
        assert curve.y.tolist() == [1, 1 / 2, 2 / 3, 1 / 2]

    @pytest.mark.parametrize("draw", [roc_curve, precision_recall_curve])
    def test_thinned_curves_cover_the_same_pixels(self, draw: type[roc_curve]) -> None:
        rng = np.random.default_rng(0)
        labels = rng.random(20_000) < 0.3
        scores = rng.normal(size=20_000) + labels
        every, few = draw(labels, scores, points=10**6), draw(labels, scores, points=400)
        assert len(every.x) > 4000
        assert len(few.x) <= 400
        assert (few.x[0], few.y[0], few.x[-1], few.y[-1]) == (every.x[0], every.y[0], every.x[-1], every.y[-1])
        assert (np.diff(few.x) >= 0).all()
        assert set(zip(few.x, few.y, strict=True)) <= set(zip(every.x, every.y, strict=True))
        for column in range(100):
            inside = [curve.y[np.minimum((curve.x * 100).astype(int), 99) == column].tolist() for curve in (every, few)]
            for pick in (min, max, lambda values: values[0], lambda values: values[-1]):
                assert pick(inside[0]) == pick(inside[1])

    def test_fewer_than_four_points_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 4"):
            roc_curve(LABELS, SCORES, points=3)


@pytest.mark.parametrize("labels", ONE_CLASS)
@pytest.mark.parametrize("metric", [image_auroc, average_precision, f1_max, roc_curve, precision_recall_curve])
def test_single_class_is_undefined(metric: type[image_auroc], labels: list[int]) -> None:
    assert metric(np.array(labels, bool), np.zeros(len(labels))) is None


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([0, 1], [0.5]),
        ([[0, 1]], [[0.1, 0.2]]),
        ([0, 2], [0.1, 0.2]),
        ([0, 1], [0.1, np.nan]),
        ([0, 1], [0.1, np.inf]),
    ],
)
def test_bad_labels_and_scores_are_refused(labels: list[int], scores: list[float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        labelled_scores(np.array(labels), np.array(scores))
