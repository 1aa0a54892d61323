"""Fuses the calibrated evidence of several experts into one score and one map (UniAD, eq. 14-15)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uniad_ray.experts.base import Evidence
from uniad_ray.scoring.calibration import ExpertCalibration, FloatArray


@dataclass(frozen=True)
class Fused:
    """The evidence of N images as one.

    Attributes:
        scores: float64, shape (N,), weighted sum of the calibrated scores.
        maps: float32, shape (N, h, w), weighted sum of the calibrated maps of the experts that localise, or None.
        calibrated: Calibrated scores by expert, each of shape (N,).
    """

    scores: FloatArray
    maps: np.ndarray | None
    calibrated: Mapping[str, FloatArray]


def fuse(
    evidence: Mapping[str, Evidence],
    calibrations: Mapping[str, ExpertCalibration],
    weights: Mapping[str, float],
) -> Fused:
    """Adds calibrated scores and maps by weight.

    Args:
        evidence: Evidence by expert, all of the same N images, maps all of one size.
        calibrations: Mean and deviation by expert.
        weights: Weight by expert; 1 where none is given.
    """
    calibrated = {name: calibrations[name].apply(item.scores) for name, item in evidence.items()}
    count = len(next(iter(calibrated.values())))
    scores = np.zeros(count, dtype=np.float64)
    maps: np.ndarray | None = None
    for name, item in evidence.items():
        weight = weights.get(name, 1.0)
        scores += weight * calibrated[name]
        if item.maps is not None:
            part = weight * calibrations[name].apply(item.maps)
            maps = part if maps is None else maps + part
    return Fused(scores, None if maps is None else maps.astype(np.float32), calibrated)


def merge_reasons(evidence: Mapping[str, Evidence], image: int) -> list[str]:
    """Collects the reasons of all experts for one image, in the order of the experts."""
    lists: list[Sequence[str]] = [item.reasons[image] for item in evidence.values()]
    return [reason for reasons in lists for reason in reasons]
