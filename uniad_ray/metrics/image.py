"""Metrics over images, each with one label and one score.

An image is called anomalous if its score is above the threshold, as in every verdict of this package.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class F1Max(NamedTuple):
    """The best F1 over all thresholds, in (0, 1], and its threshold."""

    value: float
    threshold: float


class Confusion(NamedTuple):
    """Number of images by label and decision."""

    found: int
    missed: int
    false_positives: int
    true_negatives: int

    @property
    def recall(self) -> float | None:
        """Fraction of the anomalous images called anomalous; None without anomalous images."""
        return _share(self.found, self.found + self.missed)

    @property
    def false_positive_rate(self) -> float | None:
        """Fraction of the normal images called anomalous; None without normal images."""
        return _share(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def precision(self) -> float | None:
        """Fraction of the images called anomalous that are anomalous; None if there are none."""
        return _share(self.found, self.found + self.false_positives)


class Curve(NamedTuple):
    """Points of a curve to draw: two float64 vectors of equal length in [0, 1], x ascending."""

    x: np.ndarray
    y: np.ndarray


def labelled_scores(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks the inputs of the metrics in this module.

    Args:
        labels: Shape (N,), bool or 0 and 1; true is anomalous.
        scores: Shape (N,), finite, higher is more anomalous.

    Returns:
        The labels as bool and the scores as float64.

    Raises:
        ValueError: The shapes differ, a label is neither 0 nor 1, or a score is not finite.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be two vectors of one length")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return labels.astype(bool), scores


def image_auroc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve.

    It is the probability that a random anomalous image scores above a random normal one; a tie counts half (Hanley and
    McNeil 1982, "The meaning and use of the area under a receiver operating characteristic (ROC) curve", Radiology
    143).

    Args:
        labels: As `labelled_scores`.
        scores: As `labelled_scores`.

    Returns:
        A value in [0, 1]; None with a single class.

    Raises:
        ValueError: As `labelled_scores`.
    """
    anomalous, scores = labelled_scores(labels, scores)
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(anomalous, scores)) if _both(anomalous) else None


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Average precision: the precision at each threshold, weighted by the gain in recall; not interpolated.

    Args:
        labels: As `labelled_scores`.
        scores: As `labelled_scores`.

    Returns:
        A value in (0, 1]; None with a single class.

    Raises:
        ValueError: As `labelled_scores`.
    """
    anomalous, scores = labelled_scores(labels, scores)
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(anomalous, scores)) if _both(anomalous) else None


def f1_max(labels: np.ndarray, scores: np.ndarray) -> F1Max | None:
    """The best F1 (harmonic mean of precision and recall) over all thresholds.

    Of equal F1 values, the highest threshold wins. It lies midway between the lowest score called anomalous and the
    next lower score. If all images are called anomalous, it lies just below the lowest score.

    Args:
        labels: As `labelled_scores`.
        scores: As `labelled_scores`.

    Returns:
        Value and threshold; None with a single class.

    Raises:
        ValueError: As `labelled_scores`.
    """
    anomalous, scores = labelled_scores(labels, scores)
    if not _both(anomalous):
        return None
    distinct, place = np.unique(-scores, return_inverse=True)
    distinct = -distinct
    called = np.cumsum(np.bincount(place))
    found = np.cumsum(np.bincount(place, weights=anomalous))
    f1 = 2 * found / (called + anomalous.sum())
    best = int(f1.argmax())
    following = distinct[best + 1] if best + 1 < len(distinct) else None
    return F1Max(float(f1[best]), _threshold_below(distinct[best], following))


def threshold_at_false_positive_rate(normal_scores: np.ndarray, rate: float) -> float:
    """The lowest threshold that at most the given fraction of these normal images exceeds.

    Args:
        normal_scores: Shape (N,), N at least 1, finite.
        rate: In [0, 1).

    Returns:
        The threshold; it is one of the scores.

    Raises:
        ValueError: There are no scores, one is not finite, or the rate is out of range.
    """
    scores = np.asarray(normal_scores, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError("normal scores must be a vector of at least one finite number")
    if not 0 <= rate < 1:
        raise ValueError(f"the false-positive rate must be in [0, 1), not {rate}")
    # Fractions are compared as quotients, because 0.29 * 100 is below 29 in floats.
    allowed = np.count_nonzero(np.arange(1, scores.size) / scores.size <= rate)
    return float(np.sort(scores)[scores.size - 1 - allowed])


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Confusion:
    """Counts the decisions at one threshold.

    Args:
        labels: As `labelled_scores`.
        scores: As `labelled_scores`.
        threshold: Scores above it are called anomalous.

    Raises:
        ValueError: As `labelled_scores`.
    """
    anomalous, scores = labelled_scores(labels, scores)
    called = scores > threshold
    return Confusion(
        found=int(np.count_nonzero(called & anomalous)),
        missed=int(np.count_nonzero(~called & anomalous)),
        false_positives=int(np.count_nonzero(called & ~anomalous)),
        true_negatives=int(np.count_nonzero(~called & ~anomalous)),
    )


def roc_curve(labels: np.ndarray, scores: np.ndarray, points: int = 1000) -> Curve | None:
    """Recall over false-positive rate, from (0, 0) to (1, 1), for drawing.

    Args:
        labels: As `labelled_scores`.
        scores: As `labelled_scores`.
        points: Maximum number of points, at least 4. Drawn up to `points / 4` pixels wide, the curve looks complete.

    Returns:
        The curve; None with a single class.

    Raises:
        ValueError: As `labelled_scores`, or `points` is below 4.
    """
    anomalous, scores = labelled_scores(labels, scores)
    if not _both(anomalous):
        return None
    from sklearn.metrics import roc_curve as every_rate

    false_positive_rate, recall, _ = every_rate(anomalous, scores)
    return _thinned(false_positive_rate, recall, points)


def precision_recall_curve(labels: np.ndarray, scores: np.ndarray, points: int = 1000) -> Curve | None:
    """Precision over recall, from recall 0 (with precision set to 1) to recall 1, for drawing.

    Args:
        labels: As `labelled_scores`.
        scores: As `labelled_scores`.
        points: As `roc_curve`.

    Returns:
        The curve; None with a single class.

    Raises:
        ValueError: As `roc_curve`.
    """
    anomalous, scores = labelled_scores(labels, scores)
    if not _both(anomalous):
        return None
    from sklearn.metrics import precision_recall_curve as every_precision

    precision, recall, _ = every_precision(anomalous, scores)
    return _thinned(recall[::-1], precision[::-1], points)


def _both(anomalous: np.ndarray) -> bool:
    return bool(anomalous.any() and not anomalous.all())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _threshold_below(score: float, following: float | None) -> float:
    """A threshold below the first score and not below the following one."""
    if following is None:
        return float(np.nextafter(score, -np.inf))
    middle = score / 2 + following / 2
    # The midpoint of two neighbouring floats may round to the upper one.
    return float(middle if following <= middle < score else following)


def _thinned(x: np.ndarray, y: np.ndarray, points: int) -> Curve:
    """Keeps the first, last, lowest and highest point in each column of pixels.

    No other point changes a line drawn with that many columns (Jugel et al. 2014, "M4: a visualization-oriented time
    series data aggregation", VLDB).
    """
    if points < 4:
        raise ValueError(f"a curve must have at least 4 points, not {points}")
    if len(x) <= points:
        return Curve(x, y)
    columns = points // 4
    column = np.minimum((x * columns).astype(int), columns - 1)
    by_height = np.lexsort((y, column))
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    ends = np.append(starts[1:], len(x)) - 1
    # The sort groups the points of each column in ascending order: the lowest comes first, the highest last.
    kept = np.unique(np.concatenate([starts, ends, by_height[starts], by_height[ends]]))
    return Curve(x[kept], y[kept])
