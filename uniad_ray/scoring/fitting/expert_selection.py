"""Chooses, for one category and without labels, which experts take part in the fused score and with which weight.

An expert that knows nothing of a category must cost it nothing. So a base alone takes part at first, and others have to
earn their place by telling edited from normal images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np

from uniad_ray.config.model import ExpertSelectionConfig, FusionConfig
from uniad_ray.metrics.image import image_auroc
from uniad_ray.scoring.calibration import FloatArray
from uniad_ray.scoring.fitting.synthetic_anomalies import family_of
from uniad_ray.scoring.fitting.synthetic_scores import SyntheticScores
from uniad_ray.scoring.fusion import Fusion
from uniad_ray.scoring.selection import CandidateExpert, ExpertSelection

_LEAST_LACK: Final = 0.025
"""An AUROC that lacks less than that is not known any better, with a few dozens of images."""


def choose_experts(
    config: FusionConfig, selection: ExpertSelectionConfig, normal: Mapping[str, FloatArray], synthetic: SyntheticScores
) -> ExpertSelection:
    """Chooses experts and weights.

    The expert that is best alone comes first, and each takes part if it adds enough to those before it. Experts of
    structural and of logical anomalies are chosen apart from each other: an edit of the arrangement leaves seams, which
    a structural expert finds, and would make the logical ones look as if they were not needed. Each of the two has one
    voice in the score: the weights of its experts add up to 1, since normal images deviate the more, the more is added.

    Args:
        config: The fusion, whose rule is used.
        selection: Which experts are the base, what others are judged by, and what they have to add.
        normal: Raw scores of held-out normal images by expert, each of shape (N,), N at least 2.
        synthetic: Raw scores of edits of them.

    Returns:
        The decision; without edits the base alone takes part.

    Raises:
        FitError: A score of a normal image is not finite.
    """
    calibrations = Fusion.fit(config.model_copy(update={"weights": {}}), normal).experts

    def aurocs(weights: Mapping[str, float]) -> dict[str, float]:
        chosen = {name: calibrations[name] for name, weight in weights.items() if weight}
        fusion = Fusion(config.model_copy(update={"weights": weights}), chosen, chosen)

        def fused(raw: Mapping[str, FloatArray]) -> FloatArray:
            return fusion.fuse_scores({name: raw[name] for name in chosen})

        return _aurocs(fused(normal), {kind: fused(raw) for kind, raw in synthetic.items()})

    base = dict.fromkeys(selection.base, 1.0)
    alone = {
        name: _aurocs(scores, {kind: raw[name] for kind, raw in synthetic.items()}) for name, scores in normal.items()
    }
    gains: dict[str, float] = {}
    asked: dict[str, float] = {}
    surface: dict[str, float] = dict(base)
    arrangement: dict[str, float] = {}
    for together, others, candidates, families in (
        (surface, {}, selection.surface, ("surface",)),
        (arrangement, base, selection.arrangement, ("objects", "layout")),
    ):
        for name in sorted(candidates, key=lambda name: -_mean(alone[name], families)):
            reached = _mean(aurocs(_voices(others, together)), families)
            trials = {
                weight: _mean(aurocs(_voices(others, {**together, name: weight})), families)
                for weight in selection.weights
            }
            # Of weights that are equally good the greatest, since edits are easier to find than real anomalies.
            best = max(trials, key=lambda weight: (trials[weight], weight))
            gains[name] = trials[best] - reached
            asked[name] = selection.least_gain * max(1.0 - reached, _LEAST_LACK)
            if gains[name] >= asked[name]:
                together[name] = best
    chosen = _voices(surface, arrangement)
    return ExpertSelection(
        synthetic_anomalies={kind: len(next(iter(raw.values()))) for kind, raw in synthetic.items()},
        normal_images=len(next(iter(normal.values()))),
        least_gain=selection.least_gain,
        base_auroc=aurocs(base),
        fused_auroc=aurocs(chosen),
        experts={
            name: CandidateExpert(
                weight=chosen.get(name, 0.0),
                auroc=alone[name],
                gain=gains.get(name),
                asked=asked.get(name),
            )
            for name in normal
        },
    )


def _voices(*kinds: Mapping[str, float]) -> dict[str, float]:
    """Weights with which each kind of experts has one voice, however many it is made of."""
    return {name: weight / sum(kind.values()) for kind in kinds for name, weight in kind.items()}


def _mean(aurocs: Mapping[str, float], families: Collection[str]) -> float:
    """Mean over some families of edits; that of chance where there were no such edits."""
    values = [value for family, value in aurocs.items() if family in families]
    return float(np.mean(values)) if values else 0.5


def _aurocs(normal: FloatArray, synthetic: Mapping[str, FloatArray]) -> dict[str, float]:
    """Mean over the edits of each family; an edit whose score is not finite counts as found."""
    found: dict[str, list[float]] = {}
    for kind, scores in synthetic.items():
        is_known = np.isfinite(scores)
        highest = scores[is_known].max(initial=normal.max())
        both = np.concatenate([normal, np.where(is_known, scores, highest + 1.0)])
        value = image_auroc(np.repeat([0, 1], [len(normal), len(scores)]), both)
        if value is not None:
            found.setdefault(family_of(kind), []).append(value)
    return {family: float(np.mean(values)) for family, values in found.items()}
