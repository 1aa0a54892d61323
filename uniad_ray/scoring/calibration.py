"""Puts scores on one scale and chooses the threshold, from normal images that no expert has seen (UniAD, eq. 14-15)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import FitError

FloatArray = npt.NDArray[np.float64]

MIN_DEVIATION = 1e-6
"""Deviations below this, relative to the mean, come from identical images; dividing by them would blow up noise."""


class ExpertCalibration(StrictModel):
    """Mean and deviation of one expert's raw scores on held-out normal images."""

    mean: float
    deviation: float

    def apply(self, raw: npt.NDArray[np.floating]) -> FloatArray:
        """Turns raw scores, or a raw map, into deviations from the held-out normal images."""
        return (np.asarray(raw, dtype=np.float64) - self.mean) / self.deviation


class Threshold(StrictModel):
    """The score above which an image is called anomalous.

    Attributes:
        value: Threshold on the fused, calibrated scale.
        false_positive_rate: Share of normal images it may call anomalous.
        method: `empirical` where there are enough held-out scores to read the rate off them, `gaussian_tail` where the
            rate is finer than one image and the tail of a normal distribution takes over.
        images: Held-out normal images behind it.
    """

    value: float
    false_positive_rate: float
    method: Literal["empirical", "gaussian_tail"]
    images: int


@dataclass(frozen=True)
class Fold:
    """One round of fitting and calibrating: indices of the normal images on either side."""

    fit: tuple[int, ...]
    calibrate: tuple[int, ...]


def fit_calibration(expert: str, raw: npt.NDArray[np.floating]) -> ExpertCalibration:
    """Takes mean and deviation (with n - 1) of held-out raw scores.

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
            f"expert {expert}: a held-out normal image has no finite score; look for damaged training images"
        )
    mean = float(values.mean())
    deviation = float(values.std(ddof=1))
    return ExpertCalibration(mean=mean, deviation=max(deviation, MIN_DEVIATION * max(abs(mean), 1.0)))


def choose_threshold(scores: npt.NDArray[np.floating], false_positive_rate: float) -> Threshold:
    """Chooses the threshold that at most the given share of normal images exceeds.

    With n held-out scores the k-th smallest, k = ceil((n + 1)(1 - rate)), bounds the rate for a new normal image
    whatever the distribution (split conformal prediction). Where k > n the scores cannot say: the normal distribution
    with their mean and deviation gives the quantile, never below the largest score seen.

    Args:
        scores: Fused scores of held-out normal images, shape (n,).
        false_positive_rate: Between 0 and 1, both excluded.

    Raises:
        FitError: Fewer than two scores.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    count = len(ordered)
    if count < 2:
        raise FitError(f"{count} held-out normal scores; a threshold needs at least 2 normal images")
    # The subtraction is inexact: 1 - 0.1 must not lift 11 x 0.9 above a whole number.
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
    """Splits normal images by hash of their content, so that copies of one image fall on the same side.

    Args:
        image_ids: sha256 of each image.
        share: Share to hold out.
    """
    fit: list[int] = []
    calibrate: list[int] = []
    for index, image_id in enumerate(image_ids):
        (calibrate if _position(image_id) < share else fit).append(index)
    return Fold(tuple(fit), tuple(calibrate))


def cross_folds(image_ids: Sequence[str], folds: int) -> list[Fold]:
    """Cuts few normal images into parts, each of which is held out once.

    With no more distinct images than twice `folds`, every distinct image is its own part (leave one out). Copies of one
    image always share a part, else an image would be judged against itself.

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
    """A number between 0 and 1 that follows from the image alone."""
    return int.from_bytes(hashlib.sha256(f"calibration {image_id}".encode()).digest()[:8], "big") / 2**64
