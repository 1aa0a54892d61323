"""Confidence intervals of metrics over images by the bootstrap.

Images are drawn with replacement, normal and anomalous images separately, so no resample loses a class. The interval
lies between two percentiles of the metric over the resamples (Efron 1979, "Bootstrap methods: another look at the
jackknife", Annals of Statistics 7). A resample is a count for each distinct score, and every metric follows from
cumulative sums of these counts, so scores are sorted only once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from uniad_ray.metrics.image import labelled_scores

RESAMPLES = 1000
LEVEL = 0.95

_DRAWN_AT_ONCE = 2**15


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


class Resamples(NamedTuple):
    """R resamples of images with D distinct scores, as counts; scores are in descending order.

    Attributes:
        normal_images: Number of normal images in each resample.
        anomalies: Number of anomalous images in each resample.
        tied: int64, shape (R, D): normal images with each score.
        gained: int64, shape (R, D): anomalous images with each score.
        false: int64, shape (R, D): normal images with this score or a higher one.
        found: int64, shape (R, D): anomalous images with this score or a higher one.
        false_called: int64, shape (R,): normal images above the fixed threshold.
        found_called: int64, shape (R,): anomalous images above the fixed threshold.
    """

    normal_images: int
    anomalies: int
    tied: np.ndarray
    gained: np.ndarray
    false: np.ndarray
    found: np.ndarray
    false_called: np.ndarray
    found_called: np.ndarray


Formula: TypeAlias = Callable[[Resamples], np.ndarray]
"""Computes a metric of each resample: float64, shape (R,); division by zero gives NaN, without a warning."""


def resampled_auroc(drawn: Resamples) -> np.ndarray:
    """Area under the ROC curve of each resample; NaN with one class only."""
    won = np.sum(drawn.gained * (drawn.normal_images - drawn.false + drawn.tied / 2), axis=1)
    return np.asarray(won / np.float64(drawn.normal_images * drawn.anomalies))


def resampled_average_precision(drawn: Resamples) -> np.ndarray:
    """Average precision of each resample; NaN with one class only."""
    precision = drawn.found / np.maximum(drawn.false + drawn.found, 1)
    return _of_both_classes(drawn, np.sum(drawn.gained * precision, axis=1) / np.float64(drawn.anomalies))


def resampled_f1_max(drawn: Resamples) -> np.ndarray:
    """Best F1 of each resample; NaN with one class only."""
    f1 = 2 * drawn.found / (drawn.false + drawn.found + drawn.anomalies)
    return _of_both_classes(drawn, np.max(f1, axis=1, initial=0))


def resampled_recall(drawn: Resamples) -> np.ndarray:
    """Recall at the threshold in each resample; NaN without anomalous images."""
    return np.asarray(drawn.found_called / np.float64(drawn.anomalies))


def resampled_false_positive_rate(drawn: Resamples) -> np.ndarray:
    """False-positive rate at the threshold in each resample; NaN without normal images."""
    return np.asarray(drawn.false_called / np.float64(drawn.normal_images))


def resampled_precision(drawn: Resamples) -> np.ndarray:
    """Precision at the threshold in each resample; NaN if no image of the resample is above it."""
    return np.asarray(drawn.found_called / (drawn.found_called + drawn.false_called))


def _of_both_classes(drawn: Resamples, values: np.ndarray) -> np.ndarray:
    return values if drawn.normal_images and drawn.anomalies else np.full(len(values), np.nan)


def resampled_metrics(
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    thresholds: Sequence[float],
    formulas: Sequence[Formula],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Metrics of one or several scores of the same images in each resample.

    All scores use the same resamples: an image that is hard for two scores does not widen the interval of their
    difference. Equal numbers of normal and anomalous images in the same order give the same resamples.

    Args:
        labels: Shape (N,), bool or 0 and 1; true is anomalous.
        scores: Vectors of shape (N,), finite, higher is more anomalous; they need not be on one scale.
        thresholds: Fixed threshold of each score, for recall, false-positive rate and precision.
        formulas: Formula of each metric.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples.

    Returns:
        float64, shape (scores, resamples, formulas); NaN where a metric is undefined.

    Raises:
        ValueError: The shapes differ, a label is neither 0 nor 1, or a score is not finite.
    """
    ranked = [_Ranked(labels, vector, threshold) for vector, threshold in zip(scores, thresholds, strict=True)]
    sizes = (ranked[0].normal.size, ranked[0].anomalous.size)
    draws = stratified_draws(sizes, resamples, seed, at_once=max(1, _DRAWN_AT_ONCE // max(1, sum(sizes))))
    return np.concatenate(
        [
            np.stack([_apply(formulas, entry.drawn(normal, anomalous)) for entry in ranked])
            for normal, anomalous in draws
        ],
        axis=1,
    )


def _apply(formulas: Sequence[Formula], drawn: Resamples) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([formula(drawn) for formula in formulas], axis=1)


def stratified_draws(
    sizes: Sequence[int], resamples: int, seed: int, *, at_once: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Draws resamples with replacement from each class.

    Args:
        sizes: Number of members of each class.
        resamples: Total number of resamples.
        seed: Seed of the draws.
        at_once: Number of resamples per yield.

    Yields:
        For each class, the indices of the drawn members, shape (at_once or the rest, size).
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        yield tuple(rng.integers(0, max(size, 1), (rows, size)) for size in sizes)


def draw_counts(drawn: np.ndarray, size: int) -> np.ndarray:
    """Counts how often each index was drawn in each resample.

    Args:
        drawn: Indices below `size`, shape (resamples, draws).
        size: Number of indices.

    Returns:
        int64, shape (resamples, size).
    """
    rows = len(drawn)
    flat = drawn + size * np.arange(rows)[:, np.newaxis]
    return np.bincount(flat.ravel(), minlength=rows * size).reshape(rows, size)


def percentile_interval(values: np.ndarray, level: float) -> Interval | None:
    """Interval that excludes the same fraction of resamples on both sides.

    Args:
        values: A metric of each resample, shape (resamples,); NaN where it is undefined.
        level: Coverage, in (0, 1).

    Returns:
        The interval; None if the metric is undefined in every resample.
    """
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return None
    low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(low), float(high))


class _Ranked:
    """Images by score rank: 0 for the highest; equal scores share a rank."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray, threshold: float) -> None:
        is_anomalous, scores = labelled_scores(labels, scores)
        distinct, ranks = np.unique(-scores, return_inverse=True)
        self.normal = ranks[~is_anomalous]
        self.anomalous = ranks[is_anomalous]
        self._distinct = distinct.size
        self._called = int(np.count_nonzero(-distinct > threshold))

    def drawn(self, normal: np.ndarray, anomalous: np.ndarray) -> Resamples:
        """Counts of resamples.

        Args:
            normal: Indices of the drawn normal images, shape (R, normal images).
            anomalous: Indices of the drawn anomalous images, shape (R, anomalous images).
        """
        tied = draw_counts(self.normal[normal], self._distinct)
        gained = draw_counts(self.anomalous[anomalous], self._distinct)
        false, found = np.cumsum(tied, axis=1), np.cumsum(gained, axis=1)
        at_threshold = slice(self._called - 1, self._called) if self._called else slice(0, 0)
        return Resamples(
            normal_images=normal.shape[1],
            anomalies=anomalous.shape[1],
            tied=tied,
            gained=gained,
            false=false,
            found=found,
            false_called=false[:, at_threshold].sum(axis=1),
            found_called=found[:, at_threshold].sum(axis=1),
        )
