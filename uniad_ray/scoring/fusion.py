"""Fuses the evidence of several experts into one score and one map (UniAD, eq. 14-15)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uniad_ray.config.model import FusionConfig
from uniad_ray.experts.base import Evidence
from uniad_ray.scoring.calibration import ExpertCalibration, FloatArray, fit_calibration


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


class Fusion:
    """Calibrates each term on normal images and adds the terms by weight.

    A term is a group of experts, whose raw scores are added first (eq. 14), or an expert of no group.

    Attributes:
        experts: Mean and deviation by expert.
        terms: Mean and deviation by term.
    """

    def __init__(
        self,
        config: FusionConfig,
        experts: Mapping[str, ExpertCalibration],
        terms: Mapping[str, ExpertCalibration],
    ) -> None:
        """Restores a fusion; `fit` makes one."""
        self.experts = dict(experts)
        self.terms = dict(terms)
        self._members = term_members(config, tuple(experts))
        self._weights = {name: config.weights.get(name, 1.0) for name in self._members}

    @classmethod
    def fit(cls, config: FusionConfig, raw: Mapping[str, FloatArray]) -> Fusion:
        """Takes mean and deviation of every expert and term on normal images that no expert has seen.

        Args:
            config: Weights and groups; those of experts that are not there are ignored.
            raw: Raw scores by expert, each of shape (N,), of the same N images.

        Raises:
            FitError: Fewer than two scores, or a score that is not finite.
        """
        experts = {name: fit_calibration(name, values) for name, values in raw.items()}
        terms = {
            name: experts[name] if members == (name,) else fit_calibration(name, _total(raw, members))
            for name, members in term_members(config, tuple(raw)).items()
        }
        return cls(config, experts, terms)

    @property
    def expert_weights(self) -> dict[str, float]:
        """What each expert's calibrated score is multiplied by in the fused score, which is their sum."""
        return {
            member: self._weights[term] * self.experts[member].deviation / self.terms[term].deviation
            for term, members in self._members.items()
            for member in members
        }

    def fuse(self, evidence: Mapping[str, Evidence]) -> Fused:
        """Adds calibrated scores and maps by weight.

        Args:
            evidence: Evidence of every expert, all of the same N images, maps all of one size.
        """
        raw = {name: np.asarray(item.scores, dtype=np.float64) for name, item in evidence.items()}
        maps: np.ndarray | None = None
        for term, members in self._members.items():
            found = [item.maps for item in (evidence[member] for member in members) if item.maps is not None]
            if found:
                part = self._weights[term] * self.terms[term].apply(np.sum(found, axis=0, dtype=np.float64))
                maps = part if maps is None else maps + part
        return Fused(
            scores=self.fuse_scores(raw),
            maps=None if maps is None else maps.astype(np.float32),
            calibrated={name: self.experts[name].apply(values) for name, values in raw.items()},
        )

    def fuse_scores(self, raw: Mapping[str, FloatArray]) -> FloatArray:
        """Fuses raw scores alone: float64, shape (N,)."""
        parts = [
            self._weights[term] * self.terms[term].apply(_total(raw, members))
            for term, members in self._members.items()
        ]
        return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


def term_members(config: FusionConfig, experts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The experts of each term, in the order of the experts; groups without a member are left out."""
    group_of = {member: group for group, members in config.groups.items() for member in members}
    terms: dict[str, tuple[str, ...]] = {}
    for name in experts:
        term = group_of.get(name, name)
        terms[term] = (*terms.get(term, ()), name)
    return terms


def _total(raw: Mapping[str, FloatArray], members: Sequence[str]) -> FloatArray:
    return np.asarray(np.sum([raw[member] for member in members], axis=0), dtype=np.float64)


def merge_reasons(evidence: Mapping[str, Evidence], image: int) -> list[str]:
    """Collects the reasons of all experts for one image, in the order of the experts."""
    lists: list[Sequence[str]] = [item.reasons[image] for item in evidence.values()]
    return [reason for reasons in lists for reason in reasons]
