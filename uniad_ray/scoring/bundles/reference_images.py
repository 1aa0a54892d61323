"""Reference images of a bundle, scored on loading to verify that the scores equal those of the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError
from uniad_ray.perception.base import Fields
from uniad_ray.perception.missing import Missing
from uniad_ray.scoring.scorer import Scorer

TOLERANCE = 1e-4
"""Allowed difference of the scores between machines, relative to the score."""
TOLERATED_DEVIATIONS = 0.01
"""Allowed absolute difference in deviations of held-out normal images; one pixel of a label map may flip."""


class ReferenceScores(StrictModel):
    """Raw scores of the reference images by expert, computed at the fit.

    Attributes:
        row_keys: Keys of the images.
        raw: Score of each image by expert; None if the image lacks a text that the expert needs.
        texts: Texts of a vision-language model by field, None if missing. The check then needs no model.
    """

    row_keys: tuple[str, ...]
    raw: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    texts: dict[str, tuple[str | None, ...]] = Field(default_factory=dict)


class _StoredTexts:
    """The texts of the reference images; implements `StoredFields`."""

    def __init__(self, scores: ReferenceScores) -> None:
        self._row_keys = scores.row_keys
        self._texts = scores.texts
        self.names = frozenset(scores.texts)

    def read(self, row_keys: Sequence[str], names: frozenset[str]) -> Fields:
        """See `StoredFields`."""
        rows = [self._row_keys.index(key) for key in row_keys]
        return {
            name: [Missing("no text at the fit") if (text := self._texts[name][row]) is None else text for row in rows]
            for name in sorted(names)
        }


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
        evidence = scorer.evidence(self.scores.row_keys, self.images, _StoredTexts(self.scores))
        for name in scorer.expert_names:
            values = self.scores.raw[name]
            known = [row for row, value in enumerate(values) if value is not None]
            found = np.asarray(evidence[name].scores, dtype=np.float64)[known]
            wanted = np.asarray([values[row] for row in known], dtype=np.float64)
            allowed = TOLERATED_DEVIATIONS * self.deviations[name]
            if not np.allclose(found, wanted, rtol=TOLERANCE, atol=allowed):
                raise BundleError(
                    f"{self.where}: expert {name} gives the reference images {found.tolist()}, not {wanted.tolist()}; "
                    "weights or libraries differ from those of the fit"
                )
