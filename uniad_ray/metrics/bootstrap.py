"""Bootstrap confidence intervals of image metrics.

Images are drawn with replacement, normal and anomalous ones separately: no resample loses a class. The interval lies
between two percentiles of the metric over the resamples (Efron 1979, "Bootstrap methods: another look at the
jackknife", Annals of Statistics 7). A resample is a count for each distinct score. Every metric follows from cumulative
sums of these counts, so scores are sorted only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from uniad_ray.metrics.image import labelled_scores

RESAMPLES = 1000
LEVEL = 0.95
FIGURES = ("image_auroc", "image_average_precision", "image_f1_max", "recall", "false_positive_rate", "precision")
"""The metrics with an interval, by their names in schema `metric`."""

_OF_BOTH_CLASSES = slice(0, 3)
_DRAWN_AT_ONCE = 2**15


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


def resampled_figures(
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    thresholds: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Computes the metrics of one or several scores of the same images in each resample.

    All scores use the same resamples: an image that is hard for two scores does not widen the interval of their
    difference. Equal numbers of normal and anomalous images in the same order give the same resamples.

    Args:
        labels: Shape (N,), bool or 0 and 1; true is anomalous.
        scores: Vectors of shape (N,), finite, higher is more anomalous; their scales may differ.
        thresholds: Fixed threshold of each score for recall, false-positive rate and precision.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples.

    Returns:
        float64, shape (scores, resamples, metrics), in the order of `FIGURES`. NaN where undefined: the first three
        metrics with a single class, recall without anomalous images, the false-positive rate without normal images, and
        precision if no image of the resample is above the threshold.

    Raises:
        ValueError: The shapes differ, a label is neither 0 nor 1, or a score is not finite.
    """
    ranked = [_Ranked(labels, vector, threshold) for vector, threshold in zip(scores, thresholds, strict=True)]
    sizes = (ranked[0].normal.size, ranked[0].anomalous.size)
    draws = stratified_draws(sizes, resamples, seed, at_once=max(1, _DRAWN_AT_ONCE // max(1, sum(sizes))))
    figures = np.concatenate(
        [np.stack([entry.figures(normal, anomalous) for entry in ranked]) for normal, anomalous in draws], axis=1
    )
    if 0 in sizes:
        figures[:, :, _OF_BOTH_CLASSES] = np.nan
    return figures


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
    """The interval that leaves out the same fraction of resamples on both sides.

    Args:
        values: The metric in each resample, shape (resamples,); NaN where undefined.
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

    def figures(self, normal: np.ndarray, anomalous: np.ndarray) -> np.ndarray:
        """Computes the metrics of resamples, shape (resamples, metrics), from the drawn images of each class."""
        normals, anomalies = normal.shape[1], anomalous.shape[1]
        tied = draw_counts(self.normal[normal], self._distinct)
        gained = draw_counts(self.anomalous[anomalous], self._distinct)
        false, found = np.cumsum(tied, axis=1), np.cumsum(gained, axis=1)
        called = false + found
        at_threshold = slice(self._called - 1, self._called) if self._called else slice(0, 0)
        false_called, found_called = false[:, at_threshold].sum(axis=1), found[:, at_threshold].sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack(
                [
                    np.sum(gained * (normals - false + tied / 2), axis=1) / np.float64(normals * anomalies),
                    np.sum(gained * (found / np.maximum(called, 1)), axis=1) / np.float64(anomalies),
                    np.max(2 * found / (called + anomalies), axis=1, initial=0),
                    found_called / np.float64(anomalies),
                    false_called / np.float64(normals),
                    found_called / (found_called + false_called),
                ],
                axis=1,
            )
