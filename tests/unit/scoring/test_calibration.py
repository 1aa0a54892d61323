from __future__ import annotations

import hashlib
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from uniad_ray.errors import FitError
from uniad_ray.scoring.calibration import (
    calibrate_held_out,
    choose_threshold,
    conformal_threshold,
    cross_folds,
    fit_calibration,
    holdout_fold,
)
from uniad_ray.scoring.tail import fit_tail, most_above

finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)


def identifiers(count: int) -> list[str]:
    return [hashlib.sha256(str(index).encode()).hexdigest() for index in range(count)]


def test_calibration_matches_hand_computation() -> None:
    calibration = fit_calibration("patch", np.array([1.0, 2.0, 3.0]))
    assert calibration.mean == 2.0
    assert calibration.deviation == 1.0
    assert calibration.apply(np.array([4.0])).tolist() == [2.0]


def test_identical_scores_do_not_divide_by_zero() -> None:
    calibration = fit_calibration("patch", np.array([5.0, 5.0, 5.0]))
    assert np.isfinite(calibration.apply(np.array([6.0]))).all()


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_calibration_refuses_too_few_or_broken_scores(scores: list[float]) -> None:
    with pytest.raises(FitError, match="expert patch"):
        fit_calibration("patch", np.array(scores))


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=30), st.floats(-1e4, 1e4, width=32))
def test_each_held_out_score_is_calibrated_by_all_others(scores: list[float], offset: float) -> None:
    values = np.array(scores) + offset
    spread = min(np.delete(values, index).std(ddof=1) for index in range(len(values)))
    # Nearly equal scores have no deviation, only rounding.
    assume(spread > 1e-4)

    expected = [
        fit_calibration("x", np.delete(values, index)).apply(values[index : index + 1])[0]
        for index in range(len(values))
    ]

    np.testing.assert_allclose(calibrate_held_out(values), expected, rtol=1e-6, atol=1e-6)


def test_two_held_out_scores_are_calibrated_together() -> None:
    assert calibrate_held_out(np.array([1.0, 3.0])).tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])
    # Without spread, the smallest deviation holds.
    assert calibrate_held_out(np.array([5.0, 5.0, 5.0])).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("count", "rate", "rank"),
    [(99, 0.01, 99), (99, 0.05, 95), (9, 0.1, 9), (19, 0.05, 19), (199, 0.01, 198), (4, 0.5, 3)],
)
def test_conformal_threshold_is_an_order_statistic(count: int, rate: float, rank: int) -> None:
    scores = np.arange(1, count + 1, dtype=float)
    threshold = conformal_threshold(scores[::-1], rate)
    assert threshold.value == rank
    assert threshold.method == "empirical"
    assert threshold.images == count


def test_gaussian_threshold_is_never_below_largest_score() -> None:
    scores = np.array([-1.0, 0.0, 1.0])
    threshold = choose_threshold(scores, 0.01)
    assert threshold.method == "gaussian_tail"
    assert threshold.value == pytest.approx(NormalDist(0.0, 1.0).inv_cdf(0.99))
    outlier = np.array([0.0] * 30 + [100.0])
    assert conformal_threshold(outlier, 0.01).value == 100.0


def test_rare_exceedances_come_from_the_tail() -> None:
    scores = np.random.default_rng(0).normal(size=80)
    threshold = choose_threshold(scores, 0.01)
    tail = fit_tail(scores)
    assert tail is not None
    assert threshold.method == "generalised_pareto"
    assert threshold.value == pytest.approx(tail.value_at(0.01))
    assert threshold.rate_interval is not None
    assert 0 <= threshold.rate_interval[0] < 0.01 < threshold.rate_interval[1] < 0.05
    assert threshold.resolved_rate == pytest.approx(1 / 81)


def test_frequent_exceedances_are_counted() -> None:
    scores = np.random.default_rng(0).normal(size=200)
    assert choose_threshold(scores, 0.05).value == conformal_threshold(scores, 0.05).value
    assert choose_threshold(scores, 0.04).method == "generalised_pareto"


def test_one_odd_image_does_not_set_the_threshold() -> None:
    scores = np.append(np.random.default_rng(1).normal(size=79), 9.0)
    assert conformal_threshold(scores, 0.01).value == 9.0
    assert choose_threshold(scores, 0.01).value < 6.0


def test_several_odd_images_raise_the_threshold() -> None:
    scores = np.append(np.random.default_rng(1).normal(size=75), [8.0, 8.2, 8.5, 8.7, 9.0])
    threshold = choose_threshold(scores, 0.01)
    assert (scores > threshold.value).sum() <= most_above(80, 0.01) == 2


def test_discrete_scores_have_no_tail() -> None:
    scores = np.repeat([0.0, 1.0], [60, 20])
    assert choose_threshold(scores, 0.01).method == "gaussian_tail"
    assert choose_threshold(scores, 0.01).value == conformal_threshold(scores, 0.01).value


@given(st.lists(finite, min_size=2, max_size=200), st.floats(0.001, 0.999))
def test_held_out_false_positive_rate_is_bounded(scores: list[float], rate: float) -> None:
    values = np.array(scores, dtype=float)
    threshold = choose_threshold(values, rate)
    most = most_above(len(values), rate) if threshold.method == "generalised_pareto" else rate * len(values)
    assert (values > threshold.value).sum() <= most
    coarser = choose_threshold(values, min(0.999, rate * 1.5))
    if coarser.method == threshold.method:
        assert coarser.value <= threshold.value
    assert (values > conformal_threshold(values, rate).value).mean() <= rate


@pytest.mark.parametrize(("count", "rate"), [(99, 0.05), (80, 0.01), (300, 0.05)])
def test_false_positive_rate_holds_for_new_images(count: int, rate: float) -> None:
    generator = np.random.default_rng(0)
    rates = []
    for _ in range(100):
        threshold = choose_threshold(generator.normal(size=count), rate)
        rates.append(1 - NormalDist().cdf(threshold.value))
    assert np.mean(rates) == pytest.approx(rate, rel=0.2)


def test_holdout_is_deterministic_and_keeps_copies_together() -> None:
    ids = identifiers(2000)
    fold = holdout_fold(ids, 0.2)
    assert sorted([*fold.fit, *fold.calibrate]) == list(range(2000))
    assert len(fold.calibrate) == pytest.approx(400, abs=60)
    held_out = {ids[index] for index in fold.calibrate}
    shuffled = ids[::-1] + ids[:10]
    again = holdout_fold(shuffled, 0.2)
    assert {shuffled[index] for index in again.calibrate} == held_out
    assert not {shuffled[index] for index in again.fit} & held_out


@pytest.mark.parametrize(("count", "parts"), [(40, 5), (11, 5), (10, 10), (3, 3)])
def test_cross_folds_hold_each_image_out_once(count: int, parts: int) -> None:
    ids = identifiers(count)
    folds = cross_folds(ids, 5)
    assert len(folds) == parts
    assert sorted(index for fold in folds for index in fold.calibrate) == list(range(count))
    for fold in folds:
        assert sorted([*fold.fit, *fold.calibrate]) == list(range(count))


def test_copies_share_a_fold() -> None:
    ids = identifiers(6)
    doubled = ids + ids
    for fold in cross_folds(doubled, 5):
        assert not {doubled[index] for index in fold.fit} & {doubled[index] for index in fold.calibrate}
    with pytest.raises(FitError, match="1 distinct normal images of 8"):
        cross_folds(ids[:1] * 8, 5)
