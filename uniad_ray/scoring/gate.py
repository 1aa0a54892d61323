"""Chooses, for one category and without labels, which experts take part in the fused score and with which weight.

An expert that knows nothing of a category must cost it nothing. So the base alone takes part at first, and the expert
that helps most to tell edited from normal images is added, again and again, as long as it helps enough.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FusionConfig, GateConfig
from uniad_ray.metrics.image import image_auroc
from uniad_ray.scoring.calibration import FloatArray
from uniad_ray.scoring.edited_scores import EditedScores
from uniad_ray.scoring.edits import family_of
from uniad_ray.scoring.fusion import Fusion


class GatedExpert(StrictModel):
    """What the gate decided of one expert.

    Attributes:
        weight: Weight in the fused score; 0 where the expert takes no part.
        auroc: By family of edits, how well the expert alone tells them from normal images; 0.5 is chance.
        gain: What the expert adds to the fused AUROC, mean over the families: what it added when it was taken in; for
            an expert that takes no part, the most that it would add now; None for one of the base.
    """

    weight: float
    auroc: dict[str, float]
    gain: float | None


class GateRecord(StrictModel):
    """How the experts of a category were chosen.

    Attributes:
        edits: Number of edited images by edit.
        normal_images: Held-out normal images that they are told from.
        base_auroc: Fused AUROC of the base alone, mean over the families.
        fused_auroc: The same of the experts that take part.
        least_gain: What an expert had to add.
        experts: The decision by expert.
    """

    edits: dict[str, int]
    normal_images: int
    base_auroc: float
    fused_auroc: float
    least_gain: float
    experts: dict[str, GatedExpert]

    @property
    def weights(self) -> dict[str, float]:
        """Weight by expert."""
        return {name: expert.weight for name, expert in self.experts.items()}

    def reason(self, expert: str) -> str:
        """Why an expert takes part or not, in words."""
        decided = self.experts[expert]
        alone = ", ".join(f"{family} {auroc:.3f}" for family, auroc in decided.auroc.items())
        if decided.gain is None:
            return f"always takes part; AUROC on edits alone: {alone}"
        change = f"{'adds' if decided.weight else 'would add'} {decided.gain:+.3f} to the AUROC on edits"
        needed = "" if decided.weight else f", less than {self.least_gain:g}"
        return f"{change}{needed}; alone: {alone}"


def choose_experts(
    config: FusionConfig, gate: GateConfig, normal: Mapping[str, FloatArray], edited: EditedScores
) -> GateRecord:
    """Chooses experts and weights.

    Args:
        config: The fusion, whose rule is used.
        gate: Which experts are the base, and what others have to add.
        normal: Raw scores of held-out normal images by expert, each of shape (N,), N at least 2.
        edited: Raw scores of edits of them.

    Returns:
        The decision; with no edit at all the base alone takes part.

    Raises:
        FitError: A score of a normal image is not finite.
    """
    experts = tuple(normal)
    calibrations = Fusion.fit(config, normal).experts

    def fused_auroc(weights: Mapping[str, float]) -> float:
        chosen = {name: weight for name, weight in weights.items() if weight}
        fusion = Fusion(
            config.model_copy(update={"weights": chosen}),
            {name: calibrations[name] for name in chosen},
            {name: calibrations[name] for name in chosen},
        )
        scores = {edit: fusion.fuse_scores({name: raw[name] for name in chosen}) for edit, raw in edited.items()}
        by_family = _aurocs(fusion.fuse_scores({name: normal[name] for name in chosen}), scores)
        return float(np.mean(list(by_family.values()))) if by_family else 0.5

    weights = {name: 1.0 if name in gate.base else 0.0 for name in experts}
    base_auroc = best = fused_auroc(weights)
    gains: dict[str, float] = {}
    while True:
        trials = {
            (name, weight): fused_auroc({**weights, name: weight})
            for name in experts
            if not weights[name]
            for weight in gate.weights
        }
        for name, _ in trials:
            gains[name] = max(value for (other, _), value in trials.items() if other == name) - best
        if not trials:
            break
        (name, weight), value = max(trials.items(), key=lambda trial: trial[1])
        if value - best < gate.least_gain:
            break
        weights[name], best = weight, value
    return GateRecord(
        edits={edit: len(raw[experts[0]]) for edit, raw in edited.items()},
        normal_images=len(normal[experts[0]]),
        base_auroc=base_auroc,
        fused_auroc=best,
        least_gain=gate.least_gain,
        experts={
            name: GatedExpert(
                weight=weights[name],
                auroc=_aurocs(normal[name], {edit: raw[name] for edit, raw in edited.items()}),
                gain=gains.get(name),
            )
            for name in experts
        },
    )


def gated(config: FusionConfig, record: GateRecord | None) -> FusionConfig:
    """The fusion with the weights that a gate chose, if there was one."""
    return config if record is None else config.model_copy(update={"weights": record.weights})


def _aurocs(normal: FloatArray, edited: Mapping[str, FloatArray]) -> dict[str, float]:
    """Mean over the edits of each family; an edit whose score is not finite counts as found."""
    found: dict[str, list[float]] = {}
    for edit, scores in edited.items():
        is_known = np.isfinite(scores)
        highest = scores[is_known].max(initial=normal.max())
        both = np.concatenate([normal, np.where(is_known, scores, highest + 1.0)])
        value = image_auroc(np.repeat([0, 1], [len(normal), len(scores)]), both)
        if value is not None:
            found.setdefault(family_of(edit), []).append(value)
    return {family: float(np.mean(values)) for family, values in found.items()}
