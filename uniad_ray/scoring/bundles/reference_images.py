"""Reference images of a bundle, scored on loading to verify that the scores equal those of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError
from uniad_ray.scoring.scorer import Scorer

TOLERANCE = 1e-4
"""Allowed difference of the scores between machines, relative to the score."""
TOLERATED_DEVIATIONS = 0.01
"""Allowed absolute difference in deviations of held-out normal images; one pixel of a label map may flip."""


class ReferenceScores(StrictModel):
    """Raw scores of the reference images by expert, computed at the fit."""

    row_keys: tuple[str, ...]
    raw: dict[str, tuple[float, ...]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """A few images with their scores at the fit; small enough to keep after the files of the bundle are released.

    Attributes:
        where: Name of the bundle, for messages.
        images: uint8, shape (N, H, W, 3), RGB.
        scores: Scores at the fit.
        deviations: Deviation of each expert on held-out normal images.
    """

    where: str
    images: np.ndarray
    scores: ReferenceScores
    deviations: Mapping[str, float]

    def check(self, scorer: Scorer) -> None:
        """Score the images and compare with the scores of the fit.

        Args:
            scorer: Scorer of the bundle, with any of its experts.

        Raises:
            BundleError: A score is not finite, or differs by more than `TOLERANCE` and `TOLERATED_DEVIATIONS` allow.
        """
        evidence = scorer.evidence(self.scores.row_keys, self.images)
        for name in scorer.expert_names:
            values = self.scores.raw[name]
            found = np.asarray(evidence[name].scores, dtype=np.float64)
            wanted = np.asarray(values)
            allowed = TOLERATED_DEVIATIONS * self.deviations[name]
            if not np.allclose(found, wanted, rtol=TOLERANCE, atol=allowed):
                raise BundleError(
                    f"{self.where}: expert {name} gives the reference images {found.tolist()}, not {wanted.tolist()}; "
                    "weights or libraries differ from those of the fit"
                )
