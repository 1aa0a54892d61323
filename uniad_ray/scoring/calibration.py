"""Calibrate scores and choose the threshold on held-out normal images (UniAD, eq. 14-15)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import FitError
from uniad_ray.scoring.tail import RESOLVED_COUNT, fit_tail, most_above, rate_above

FloatArray = npt.NDArray[np.float64]

MIN_DEVIATION = 1e-6
"""Smallest deviation, relative to the mean. Identical images give smaller ones, which would amplify noise."""


_EXTREME_RATE: Final = 1e-6


class ExpertCalibration(StrictModel):
    """Mean and deviation of one expert's raw scores on held-out normal images."""

    mean: float
    deviation: float

    def apply(self, raw: npt.NDArray[np.floating]) -> FloatArray:
        """Convert raw scores or a raw map to standard deviations from the held-out mean."""
        return (np.asarray(raw, dtype=np.float64) - self.mean) / self.deviation


class Threshold(StrictModel):
    """Threshold of the fused score.

    Attributes:
        value: Scores above this value are anomalous, on the fused, calibrated scale.
        false_positive_rate: Fraction of normal images allowed above it; expected, if a user set the value.
        method: `empirical` if the held-out scores resolve the rate; `generalised_pareto` if the tail of a generalised
            Pareto distribution is used; `gaussian_tail` if that fit is not possible and the tail of a normal
            distribution is used; `set_by_hand` and `from_run` if a user set it after the fit.
        images: Number of held-out normal images.
        rate_interval: 90 % interval of the fraction of new normal images above the value; None in older bundles.
    """

    value: float
    false_positive_rate: float
    method: Literal["empirical", "generalised_pareto", "gaussian_tail", "set_by_hand", "from_run"]
    images: int
    rate_interval: tuple[float, float] | None = None

    @property
    def asked_rate(self) -> float:
        """The false-positive rate in (0, 1), for a threshold of other experts that is to be as strict as this one.

        The rate that is expected of a value that a user set may be 0 or 1.
        """
        return min(max(self.false_positive_rate, _EXTREME_RATE), 1.0 - _EXTREME_RATE)

    @property
    def resolved_rate(self) -> float:
        """Smallest rate that the images support without extrapolation."""
        return 1.0 / (self.images + 1)


@dataclass(frozen=True)
class Fold:
    """Indices of the normal images to fit on and to calibrate on in one round."""

    fit: tuple[int, ...]
    calibrate: tuple[int, ...]


def fit_calibration(expert: str, raw: npt.NDArray[np.floating]) -> ExpertCalibration:
    """Compute mean and sample standard deviation (n - 1) of held-out raw scores.

    Raises:
        FitError: Fewer than two scores, or a score that is not finite.
    """
    values = np.asarray(raw, dtype=np.float64)
    if values.size < 2:
        raise FitError(
            f"expert {expert}: {values.size} held-out normal scores; calibration needs at least 2 normal images"
        )
    if not np.isfinite(values).all():
        raise FitError(
            f"expert {expert}: a held-out normal image has no finite score; check for corrupt training images"
        )
    mean = float(values.mean())
    deviation = float(values.std(ddof=1))
    return ExpertCalibration(mean=mean, deviation=max(deviation, MIN_DEVIATION * max(abs(mean), 1.0)))


def calibrate_held_out(raw: npt.NDArray[np.floating]) -> FloatArray:
    """Convert each held-out raw score to standard deviations from the mean of all others.

    A score that takes part in its own mean and deviation lies nearer to them than a new one does: an outlier among n
    scores is at most (n - 1) / sqrt(n) deviations away, and widens the deviation for the others. A threshold from such
    scores has about twice the rate of false alarms that was asked for.

    Args:
        raw: Finite scores of the held-out normal images, shape (n,).

    Returns:
        Shape (n,). With two scores, whose others have no deviation, both are calibrated together.
    """
    values = np.asarray(raw, dtype=np.float64)
    count = len(values)
    if count < 3:
        return fit_calibration("held-out scores", values).apply(values)
    # About the mean of all, so that the sums do not cancel.
    mean = values.mean()
    centred = values - mean
    others = mean - centred / (count - 1)
    squares = np.square(centred).sum() - np.square(centred) * count / (count - 1)
    deviations = np.sqrt(np.maximum(squares, 0.0) / (count - 2))
    floors = MIN_DEVIATION * np.maximum(np.abs(others), 1.0)
    return np.asarray((values - others) / np.maximum(deviations, floors), dtype=np.float64)


def choose_threshold(scores: npt.NDArray[np.floating], false_positive_rate: float) -> Threshold:
    """Choose the threshold that about the given fraction of new normal images exceeds.

    With fewer than ten held-out scores expected above it, the threshold comes from a generalised Pareto distribution
    fitted to the highest scores: an order statistic of so few varies too much. The threshold is raised until no more
    scores are above it than the rate makes plausible. With more scores, or if the fit does not describe them, the
    threshold is that of `conformal_threshold`.

    Args:
        scores: Fused scores of held-out normal images, shape (n,).
        false_positive_rate: Fraction in (0, 1).

    Raises:
        FitError: Fewer than two scores.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    chosen = conformal_threshold(ordered, false_positive_rate)
    if len(ordered) * false_positive_rate < RESOLVED_COUNT and (tail := fit_tail(ordered)) is not None:
        plausible = float(ordered[len(ordered) - 1 - most_above(len(ordered), false_positive_rate)])
        value = max(tail.value_at(false_positive_rate), plausible)
        chosen = chosen.model_copy(update={"value": value, "method": "generalised_pareto"})
    above = rate_above(ordered, chosen.value)
    return chosen.model_copy(update={"rate_interval": (above.low, above.high)})


def conformal_threshold(scores: npt.NDArray[np.floating], false_positive_rate: float) -> Threshold:
    """Choose the threshold that at most the given fraction of normal images exceeds, without a model of the tail.

    The threshold is the k-th smallest of n held-out scores, k = ceil((n + 1)(1 - rate)). It bounds the rate of new
    normal images for any distribution (split conformal prediction). If k > n, the threshold is the quantile of the
    normal distribution with the mean and deviation of the scores, but never below the largest score.

    Args:
        scores: Fused scores of held-out normal images, shape (n,).
        false_positive_rate: Fraction in (0, 1).

    Raises:
        FitError: Fewer than two scores.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    count = len(ordered)
    if count < 2:
        raise FitError(f"{count} held-out normal scores; a threshold needs at least 2 normal images")
    # Rounding removes floating-point error: 11 x (1 - 0.1) could exceed an integer.
    rank = math.ceil(round((count + 1) * (1.0 - false_positive_rate), 9))
    if 1 <= rank <= count:
        return Threshold(
            value=float(ordered[rank - 1]), false_positive_rate=false_positive_rate, method="empirical", images=count
        )
    tail = NormalDist(float(ordered.mean()), max(float(ordered.std(ddof=1)), 1e-12)).inv_cdf(1.0 - false_positive_rate)
    return Threshold(
        value=max(float(ordered[-1]), tail),
        false_positive_rate=false_positive_rate,
        method="gaussian_tail",
        images=count,
    )


def holdout_fold(image_ids: Sequence[str], share: float) -> Fold:
    """Split normal images by content hash. Copies of one image fall on the same side.

    Args:
        image_ids: sha256 of each image.
        share: Fraction to hold out.
    """
    fit: list[int] = []
    calibrate: list[int] = []
    for index, image_id in enumerate(image_ids):
        (calibrate if _position(image_id) < share else fit).append(index)
    return Fold(tuple(fit), tuple(calibrate))


def cross_folds(image_ids: Sequence[str], folds: int) -> list[Fold]:
    """Split few normal images into parts and hold out each part once.

    With at most `2 * folds` distinct images, every distinct image is its own part (leave-one-out). Copies of one image
    share a part, so no image is scored against itself.

    Raises:
        FitError: Fewer than two distinct images.
    """
    distinct = sorted(set(image_ids), key=_position)
    if len(distinct) < 2:
        raise FitError(f"{len(distinct)} distinct normal images of {len(image_ids)}; a fit needs at least 2, better 20")
    parts = len(distinct) if len(distinct) <= 2 * folds else folds
    part_of = {image_id: index % parts for index, image_id in enumerate(distinct)}
    members = [part_of[image_id] for image_id in image_ids]
    return [
        Fold(
            tuple(index for index, part in enumerate(members) if part != held_out),
            tuple(index for index, part in enumerate(members) if part == held_out),
        )
        for held_out in range(parts)
    ]


def _position(image_id: str) -> float:
    """Hash the image to a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"calibration {image_id}".encode()).digest()[:8], "big") / 2**64
