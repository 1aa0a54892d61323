"""Which synthetic logical anomalies tell logical experts apart.

A logical anomaly is one whose patches are all normal. Those in which a patch memory sees something new, such as a part
in a place where none ever was or a seam, would make every expert look good. And not every change breaks a rule: a part
that lies in any direction may be turned. What no expert detects tells nothing about them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np

from uniad_ray.scoring.calibration import FloatArray
from uniad_ray.scoring.fitting.selection.separation import anomaly_auroc
from uniad_ray.scoring.fitting.synthetic.kinds import LOGICAL_FAMILIES, SYNTHETIC_ANOMALIES, family_of

_FEWEST: Final = 8
"""Fewest anomalies in which a patch memory sees nothing; with fewer, all count."""
_BREAKS_A_RULE: Final = 0.65
"""AUROC of the best logical expert from which a kind of anomaly breaks a rule of the product."""

_LOGICAL: Final = frozenset(kind for kind in SYNTHETIC_ANOMALIES if family_of(kind) in LOGICAL_FAMILIES)


def telling_anomalies(
    normal: Mapping[str, FloatArray],
    anomalies: Mapping[str, Mapping[str, FloatArray]],
    structural: Collection[str],
    logical: Collection[str],
) -> dict[str, dict[str, FloatArray]]:
    """Leave out logical anomalies that show something new, and kinds that break no rule; keep everything else.

    Args:
        normal: Raw scores of held-out normal images by expert, each of shape (N,), finite.
        anomalies: Raw scores of anomalies by kind and by expert, each of shape (A,).
        structural: Experts that see what is new in patches.
        logical: Experts that the anomalies are for.

    Returns:
        Scores by kind and by expert; kinds without an anomaly are omitted.
    """
    hidden = {
        kind: _rows(raw, _shows_nothing_new(normal, raw, structural))
        for kind, raw in anomalies.items()
        if kind in _LOGICAL
    }
    if sum(_count(raw) for raw in hidden.values()) < _FEWEST:
        hidden = {kind: dict(raw) for kind, raw in anomalies.items() if kind in _LOGICAL}
    best = {kind: _best_auroc(normal, raw, logical) for kind, raw in hidden.items() if _count(raw)}
    kept = {kind: hidden[kind] for kind, auroc in best.items() if auroc >= _BREAKS_A_RULE}
    return {kind: kept.get(kind, dict(raw)) for kind, raw in anomalies.items() if kind in kept or kind not in _LOGICAL}


def _shows_nothing_new(
    normal: Mapping[str, FloatArray], raw: Mapping[str, FloatArray], structural: Collection[str]
) -> np.ndarray:
    count = _count(raw)
    none_of = [raw[name] <= normal[name].max() for name in structural]
    return np.asarray(np.all([np.ones(count, dtype=bool), *none_of], axis=0))


def _best_auroc(normal: Mapping[str, FloatArray], raw: Mapping[str, FloatArray], logical: Collection[str]) -> float:
    aurocs = [anomaly_auroc(normal[name], raw[name]) for name in logical]
    return max((value for value in aurocs if value is not None), default=0.5)


def _rows(raw: Mapping[str, FloatArray], rows: np.ndarray) -> dict[str, FloatArray]:
    return {name: values[rows] for name, values in raw.items()}


def _count(raw: Mapping[str, FloatArray]) -> int:
    return len(next(iter(raw.values()), ()))
