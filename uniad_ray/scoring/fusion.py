"""Fuse the evidence of several experts into one score and one map (UniAD, eq. 14-15; TMUAD, eq. 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from uniad_ray.config.model import FusionConfig
from uniad_ray.errors import FitError
from uniad_ray.experts.base import Evidence
from uniad_ray.perception.region import Region
from uniad_ray.scoring.calibration import ExpertCalibration, FloatArray, calibrate_held_out, fit_calibration

_LINEAR_UP_TO: Final = 4.0
_NORMAL_RANGE: Final = 2.0
"""Calibrated score up to which an expert has found nothing, whatever it says."""


@dataclass(frozen=True)
class Fused:
    """Fused evidence of N images.

    Attributes:
        scores: float64, shape (N,): the weighted sum of the terms of the calibrated scores, or the maximum of the fused
            map, depending on the rule.
        maps: float32, shape (N, h, w): the weighted sum of the terms of the calibrated maps, on the scale of the
            scores; None without maps.
        calibrated: Calibrated scores by expert, each of shape (N,).
    """

    scores: FloatArray
    maps: np.ndarray | None
    calibrated: Mapping[str, FloatArray]


class Fusion:
    """Calibrate each term on normal images, and add the terms by the configured rule and weights.

    A term is a group of experts, whose raw scores are added first (eq. 14), or a single expert without a group.

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
        """Restore a fusion; `fit` creates one."""
        self.experts = dict(experts)
        self.terms = dict(terms)
        self._rule = config.rule
        self._excess_from = config.excess_from
        self._members = term_members(config, tuple(experts))
        self._weights = {name: config.weights.get(name, 1.0) for name in self._members}

    @classmethod
    def fit(cls, config: FusionConfig, raw: Mapping[str, FloatArray]) -> Fusion:
        """Compute mean and deviation of every expert and term on held-out normal images.

        Args:
            config: Weights and groups; entries of absent experts are ignored.
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

    @classmethod
    def uncalibrated(cls, config: FusionConfig, experts: Sequence[str]) -> Fusion:
        """Create a fusion that leaves raw scores and maps unchanged, for use before calibration."""
        as_they_are = ExpertCalibration(mean=0.0, deviation=1.0)
        terms = term_members(config, experts)
        return cls(config, dict.fromkeys(experts, as_they_are), dict.fromkeys(terms, as_they_are))

    @property
    def expert_weights(self) -> dict[str, float]:
        """Factor of each expert in the fused score; it multiplies the calibrated score with the rule `sum`."""
        return {
            member: self._weights[term] * self.experts[member].deviation / self.terms[term].deviation
            for term, members in self._members.items()
            for member in members
        }

    def fuse(self, evidence: Mapping[str, Evidence], region: Region | None = None) -> Fused:
        """Fuse scores and maps by rule and weight.

        Args:
            evidence: Evidence of every expert for the same N images. Square maps of several sizes are enlarged to the
                largest one.
            region: Part of the images that counts; outside, each map has its lowest value inside.

        Raises:
            FitError: The rule is `maps`, and no expert gives maps.
        """
        raw = {name: np.asarray(item.scores, dtype=np.float64) for name, item in evidence.items()}
        parts = []
        given = _of_one_size({name: item.maps for name, item in evidence.items() if item.maps is not None})
        for term, members in self._members.items():
            found = [given[member] for member in members if member in given]
            if found:
                raw_maps = np.asarray(np.sum(found, axis=0, dtype=np.float64))
                ruled = raw_maps if self._rule == "maps" else self._ruled(self.terms[term].apply(raw_maps), 0.0)
                parts.append(self._weights[term] * ruled)
        maps = np.sum(parts, axis=0) if parts else None
        # With a start of 0, stored bundles keep their maps to the last bit.
        if maps is not None and self._rule == "excess" and self._excess_from:
            maps = counted_from(maps, self._excess_from)
        if maps is not None and region is not None:
            inside = region.cells(maps.shape[1:])
            maps = np.where(inside, maps, maps[:, inside].min(axis=1)[:, None, None])
        return Fused(
            scores=_maxima(maps, raw) if self._rule == "maps" else self.fuse_scores(raw),
            maps=None if maps is None else maps.astype(np.float32),
            calibrated={name: self.experts[name].apply(values) for name, values in raw.items()},
        )

    def fuse_scores(self, raw: Mapping[str, FloatArray]) -> FloatArray:
        """Fuse raw scores without maps: float64, shape (N,).

        Raises:
            FitError: The rule is `maps`, which needs maps.
        """
        return self._fuse({term: self.terms[term].apply(total) for term, total in self._totals(raw).items()})

    def fuse_held_out(self, raw: Mapping[str, FloatArray]) -> FloatArray:
        """Fuse the raw scores that the fusion was fitted on, each calibrated by all others: float64, shape (N,).

        They are distributed like the scores of new normal images, which take no part in the calibration either.

        Raises:
            FitError: The rule is `maps`, which needs maps.
        """
        return self._fuse({term: calibrate_held_out(total) for term, total in self._totals(raw).items()})

    def _totals(self, raw: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        return {term: _total(raw, members) for term, members in self._members.items()}

    def _fuse(self, calibrated: Mapping[str, FloatArray]) -> FloatArray:
        if self._rule == "maps":
            raise FitError("fusion rule maps: scores are computed from maps and cannot be fused without them")
        parts = [self._weights[term] * self._ruled(values, self._excess_from) for term, values in calibrated.items()]
        return np.asarray(np.sum(parts, axis=0), dtype=np.float64)

    def _ruled(self, calibrated: FloatArray, start: float) -> FloatArray:
        """Apply the rule to the calibrated scores or maps of a term; the excess is counted from `start`."""
        return calibrated if self._rule == "sum" else excess(calibrated, start)


def _of_one_size(maps: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Enlarge smaller maps to the side of the largest."""
    sides = {one.shape[-1] for one in maps.values()}
    if len(sides) < 2:
        return maps
    from uniad_ray.experts.shared.anomaly_map import anomaly_maps

    side = max(sides)
    return {name: one if one.shape[-1] == side else anomaly_maps(one, side, 0.0) for name, one in maps.items()}


def _maxima(maps: FloatArray | None, raw: Mapping[str, FloatArray]) -> FloatArray:
    """Return the maximum of each fused map; NaN for images with a non-finite score of any expert."""
    if maps is None:
        raise FitError("fusion rule maps: no expert of the set gives maps; choose another rule")
    finite = np.isfinite(list(raw.values())).all(axis=0)
    return np.asarray(np.where(finite, maps.max(axis=(1, 2)), np.nan), dtype=np.float64)


def excess(calibrated: FloatArray, start: float = 0.0) -> FloatArray:
    """Map each calibrated score z to its excess over normal, a strictly increasing function with value 0 at z = 0.

    With s(z) = log(1 + exp(z - start)), f(s) = s for s <= 4 and 4 (1 + log(s / 4)) above, the excess is
    f(s(z)) - f(s(0)). Scores below `start` contribute little, so that the small deviations that every expert has on
    normal images do not add up. Far above, scores grow only logarithmically, because a few held-out images do not
    determine the tails.

    Args:
        calibrated: Standard deviations from the mean of held-out normal images, any shape.
        start: Deviations from which a score counts, at least 0.
    """
    with np.errstate(invalid="ignore"):  # non-finite scores stay non-finite
        soft = np.logaddexp(0.0, np.asarray(calibrated, dtype=np.float64) - start)
    return np.asarray(_capped(soft) - np.logaddexp(0.0, -start), dtype=np.float64)


def counted_from(excesses: FloatArray, start: float) -> FloatArray:
    """Convert excesses that were counted from 0 to those of the same scores counted from `start`.

    A strictly increasing function with value 0 at 0; linear below.

    Args:
        excesses: Results of `excess` with start 0, or sums of them, any shape.
        start: Deviations from which a score counts, at least 0.
    """
    values = np.maximum(excesses, 0.0) + np.log(2.0)
    soft = np.where(values <= _LINEAR_UP_TO, values, _LINEAR_UP_TO * np.exp(values / _LINEAR_UP_TO - 1.0))
    # log(exp(s) - 1), the calibrated score.
    found = excess(soft + np.log(-np.expm1(-soft)), start)
    slope = 2.0 / (1.0 + np.exp(start))
    return np.asarray(np.where(excesses > 0.0, found, slope * excesses), dtype=np.float64)


def _capped(soft: FloatArray) -> FloatArray:
    """The identity up to 4, and 4 (1 + log(s / 4)) above."""
    tail = _LINEAR_UP_TO * (1.0 + np.log(np.maximum(soft, _LINEAR_UP_TO) / _LINEAR_UP_TO))
    return np.asarray(np.minimum(soft, tail), dtype=np.float64)


def term_members(config: FusionConfig, experts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the experts of each term in the order of the experts, without empty groups."""
    group_of = {member: group for group, members in config.groups.items() for member in members}
    terms: dict[str, tuple[str, ...]] = {}
    for name in experts:
        term = group_of.get(name, name)
        terms[term] = (*terms.get(term, ()), name)
    return terms


def _total(raw: Mapping[str, FloatArray], members: Sequence[str]) -> FloatArray:
    return np.asarray(np.sum([raw[member] for member in members], axis=0), dtype=np.float64)


def merge_reasons(evidence: Mapping[str, Evidence], calibrated: Mapping[str, FloatArray], image: int) -> list[str]:
    """Collect the reasons for one image of all experts above their normal range, the highest calibrated score first."""
    unusual = (name for name in evidence if calibrated[name][image] > _NORMAL_RANGE)
    by_excess = sorted(unusual, key=lambda name: -calibrated[name][image])
    return [reason for name in by_excess for reason in evidence[name].reasons[image]]
