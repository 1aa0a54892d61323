from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from uniad_ray.metrics.bootstrap import (
    LEVEL,
    Interval,
    draw_counts,
    percentile_interval,
    resampled_metrics,
    stratified_draws,
)
from uniad_ray.metrics.catalogue import CATALOGUE
from uniad_ray.metrics.image import average_precision, confusion, f1_max, image_auroc

FORMULAS = {entry.key: entry.resampled for entry in CATALOGUE if entry.resampled is not None}
BOTH_CLASSES = ("image_auroc", "image_average_precision", "image_f1_max")


def intervals_of(metrics: np.ndarray, level: float) -> dict[str, Interval | None]:
    return {name: percentile_interval(metrics[:, index], level) for index, name in enumerate(FORMULAS)}


def image_intervals(
    labels: np.ndarray, scores: np.ndarray, threshold: float, *, level: float = LEVEL, **drawn: int
) -> dict[str, Interval | None]:
    (metrics,) = resampled_metrics(labels, [scores], [threshold], list(FORMULAS.values()), **drawn)
    return intervals_of(metrics, level)


def paired_intervals(
    labels: np.ndarray, scores: tuple[np.ndarray, np.ndarray], thresholds: tuple[float, float], **drawn: int
) -> dict[str, Interval | None]:
    first, second = resampled_metrics(labels, scores, thresholds, list(FORMULAS.values()), **drawn)
    return intervals_of(second - first, LEVEL)


def drawn_images(normal_images: int, anomalies: int, *, distinct: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels in random order, and scores with few distinct values."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(normal_images + anomalies) < anomalies)
    return labels, np.round(rng.normal(size=labels.size) * distinct / 6 + labels) * 0.1


def direct_metrics(labels: np.ndarray, scores: np.ndarray, threshold: float) -> list[float]:
    counted = confusion(labels, scores, threshold)
    best = f1_max(labels, scores)
    values = {
        "image_auroc": image_auroc(labels, scores),
        "image_average_precision": average_precision(labels, scores),
        "image_f1_max": best.value if best else None,
        "recall": counted.recall,
        "false_positive_rate": counted.false_positive_rate,
        "precision": counted.precision,
    }
    assert set(values) == set(FORMULAS)
    return [np.nan if values[name] is None else values[name] for name in FORMULAS]


def resampled_images(labels: np.ndarray, resamples: int, seed: int) -> list[np.ndarray]:
    """Indices of the images of each resample."""
    normal, anomalous = np.flatnonzero(~labels), np.flatnonzero(labels)
    draws = stratified_draws((normal.size, anomalous.size), resamples, seed, at_once=resamples)
    return [
        np.concatenate([normal[normal_rows], anomalous[anomalous_rows]])
        for normal_draws, anomalous_draws in draws
        for normal_rows, anomalous_rows in zip(normal_draws, anomalous_draws, strict=True)
    ]


def percentiles(values: np.ndarray) -> list[Interval]:
    return [Interval(*np.nanquantile(column, (0.025, 0.975))) for column in values.T]


@pytest.mark.parametrize(
    ("normal_images", "anomalies", "distinct"), [(30, 20, 6), (40, 3, 1000), (1, 1, 3), (5, 60, 4)]
)
def test_intervals_match_metrics_of_resampled_images(normal_images: int, anomalies: int, distinct: int) -> None:
    labels, scores = drawn_images(normal_images, anomalies, distinct=distinct)
    threshold = float(np.median(scores))
    intervals = image_intervals(labels, scores, threshold, resamples=60, seed=5)
    chosen = resampled_images(labels, 60, 5)
    expected = percentiles(np.array([direct_metrics(labels[rows], scores[rows], threshold) for rows in chosen]))
    assert list(intervals) == list(FORMULAS)
    for interval, direct in zip(intervals.values(), expected, strict=True):
        assert interval == pytest.approx(direct, abs=1e-12)


def test_paired_intervals_match_resampled_differences() -> None:
    labels, first = drawn_images(30, 20, distinct=8)
    second = first + drawn_images(30, 20, distinct=3, seed=1)[1]
    intervals = paired_intervals(labels, (first, second), (0.1, 0.2), resamples=60, seed=5)
    chosen = resampled_images(labels, 60, 5)
    differences = [
        np.subtract(
            direct_metrics(labels[rows], second[rows], 0.2),
            direct_metrics(labels[rows], first[rows], 0.1),
        )
        for rows in chosen
    ]
    for interval, direct in zip(intervals.values(), percentiles(np.array(differences)), strict=True):
        assert interval == pytest.approx(direct, abs=1e-12)


def test_resamples_in_parts_match_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = drawn_images(200, 100, distinct=10)
    whole = image_intervals(labels, scores, 0.0)
    monkeypatch.setattr("uniad_ray.metrics.bootstrap._DRAWN_AT_ONCE", 900)
    parts = image_intervals(labels, scores, 0.0)
    for name in FORMULAS:
        assert whole[name] == pytest.approx(parts[name], abs=0.02)
    assert whole["image_auroc"] != parts["image_auroc"]


def test_interval_has_the_stated_coverage() -> None:
    # Anomalous images score N(1, 1), normal ones N(0, 1): this is the probability of a positive difference.
    area = NormalDist(1, 2**0.5).cdf(2)
    rng = np.random.default_rng(0)
    labels = np.arange(160) < 80
    covered = 0
    for seed in range(200):
        interval = image_intervals(labels, rng.normal(size=160) + labels, 0.5, resamples=200, seed=seed)["image_auroc"]
        assert interval is not None
        covered += interval.low <= area <= interval.high
    assert 180 <= covered <= 198


def test_difference_of_a_score_with_itself_is_zero() -> None:
    labels, scores = drawn_images(20, 20, distinct=5)
    intervals = paired_intervals(labels, (scores, 3 * scores + 1), (0.1, 1.3))
    assert {interval for interval in intervals.values() if interval is not None} == {Interval(0.0, 0.0)}


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    labels, first = drawn_images(100, 100, distinct=1000)
    second = first + np.random.default_rng(2).normal(size=200) * 0.02
    paired = paired_intervals(labels, (first, second), (0.0, 0.0))["image_auroc"]
    alone = image_intervals(labels, first, 0.0)["image_auroc"]
    assert paired is not None
    assert alone is not None
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_perfect_separation_gives_zero_width() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    intervals = image_intervals(labels, np.array([0.0, 1.0, 1.0, 2.0, 3.0]), 1.5)
    expected = {name: Interval(1.0, 1.0) for name in FORMULAS} | {"false_positive_rate": Interval(0.0, 0.0)}
    assert intervals == expected


@pytest.mark.parametrize(
    ("labels", "undefined"),
    [
        ([0, 0], {*BOTH_CLASSES, "recall"}),
        ([1, 1], {*BOTH_CLASSES, "false_positive_rate"}),
        ([], {*FORMULAS}),
    ],
)
def test_missing_class_has_no_interval(labels: list[int], undefined: set[str]) -> None:
    intervals = image_intervals(np.array(labels, bool), np.ones(len(labels)), 0.5)
    assert {name for name, interval in intervals.items() if interval is None} == undefined


def test_precision_without_positives_has_no_interval() -> None:
    intervals = image_intervals(np.array([0, 1]), np.array([0.1, 0.2]), 0.2)
    assert intervals["precision"] is None
    assert intervals["recall"] == Interval(0.0, 0.0)


def test_interval_depends_on_the_seed() -> None:
    labels, scores = drawn_images(30, 30, distinct=1000)
    first, again, other = (image_intervals(labels, scores, 0.0, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["image_auroc"] != other["image_auroc"]


def test_higher_level_widens_the_interval() -> None:
    labels, scores = drawn_images(30, 30, distinct=1000)
    narrow, wide = (image_intervals(labels, scores, 0.0, level=level)["image_auroc"] for level in (0.5, 0.99))
    assert narrow is not None
    assert wide is not None
    assert wide.low < narrow.low < narrow.high < wide.high


def test_draws_keep_class_sizes() -> None:
    parts = list(stratified_draws((3, 0), 7, 0, at_once=3))
    assert [tuple(drawn.shape for drawn in part) for part in parts] == [((n, 3), (n, 0)) for n in (3, 3, 1)]
    counts = draw_counts(np.concatenate([part[0] for part in parts]), 3)
    assert counts.shape == (7, 3)
    assert (counts.sum(axis=1) == 3).all()


def test_draws_are_uniform() -> None:
    drawn = next(iter(stratified_draws((4,), 5000, 0, at_once=5000)))[0]
    assert draw_counts(drawn, 4).sum(axis=0) == pytest.approx([5000] * 4, rel=0.05)


def test_draw_counts_by_hand() -> None:
    assert draw_counts(np.array([[0, 2, 2], [1, 1, 1]]), 4).tolist() == [[1, 0, 2, 0], [0, 3, 0, 0]]


def test_percentiles_ignore_undefined_resamples() -> None:
    values = np.array([*range(101), np.nan])
    assert percentile_interval(values, 0.9) == pytest.approx(Interval(5.0, 95.0))
    assert percentile_interval(np.array([np.nan]), 0.9) is None


@pytest.mark.parametrize("lengths", [(1, 2), (2, 1)])
def test_scores_must_have_equal_length(lengths: tuple[int, int]) -> None:
    first, second = (np.zeros(length) for length in lengths)
    with pytest.raises(ValueError, match="one length"):
        paired_intervals(np.array([0, 1]), (first, second), (0.0, 0.0))
