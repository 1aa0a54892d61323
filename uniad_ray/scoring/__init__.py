"""Scoring: extract features, score with every expert, calibrate and fuse; and the bundles that store a scorer."""

from __future__ import annotations

from uniad_ray.scoring.calibration import ExpertCalibration, Threshold
from uniad_ray.scoring.fusion import Fused, Fusion
from uniad_ray.scoring.scorer import Scorer, Verdict
from uniad_ray.scoring.selection import CandidateExpert, ExpertSelection

__all__ = [
    "CandidateExpert",
    "ExpertCalibration",
    "ExpertSelection",
    "Fused",
    "Fusion",
    "Scorer",
    "Threshold",
    "Verdict",
]
