"""Select the experts of a category and their weights, from its normal images alone or with a few known defects.

Synthetic anomalies show which experts help, but not well enough to rely on one expert: they differ from real ones. The
selection therefore starts with a base of experts that work for most products, and adds an expert only if it improves
the detection of synthetic anomalies. Known defects, if there are some, count as much as all synthetic anomalies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from uniad_ray.config.expert_selection import ExpertSelectionConfig
from uniad_ray.config.model import FusionConfig
from uniad_ray.scoring.calibration import FloatArray
from uniad_ray.scoring.fitting.selection.known_defects import KNOWN
from uniad_ray.scoring.fitting.selection.logical_anomalies import telling_anomalies
from uniad_ray.scoring.fitting.selection.separation import Families, Separation, mean_auroc
from uniad_ray.scoring.fitting.selection.synthetic_scores import SyntheticScores, without_gaps
from uniad_ray.scoring.fitting.synthetic.kinds import LOGICAL_FAMILIES
from uniad_ray.scoring.fusion import Fusion
from uniad_ray.scoring.selection import CandidateExpert, ExpertSelection, Trial

_STRUCTURAL: Final = (("surface",), (f"{KNOWN}_structural", KNOWN))
_LOGICAL: Final = (LOGICAL_FAMILIES, (f"{KNOWN}_logical", KNOWN))
"""Families of synthetic anomalies and of known defects by which each kind of expert is judged."""
_LEAST_LACK: Final = 0.025
"""Smallest gap to an AUROC of 1 that a few dozen images can resolve."""
_LEAST_WEIGHT: Final = 0.02
"""Weight of an expert at chance, before the weights of its kind are scaled; an AUROC of 1 has 0.5."""
_CERTAIN: Final = 0.75
"""AUROC of the logical experts from which they have their full weight; at 0.5, which is chance, they have none."""


def choose_experts(
    config: FusionConfig,
    selection: ExpertSelectionConfig,
    normal: Mapping[str, FloatArray],
    synthetic: SyntheticScores,
    known: SyntheticScores | None = None,
) -> ExpertSelection:
    """Select experts and weights.

    Structural and logical experts are selected separately, logical ones on the `telling_anomalies`: those in which the
    structural base sees nothing new. The base of each kind is always selected. The candidates are tried in order of
    their own AUROC, and each is selected if it adds enough to the experts before it, and not by chance.

    An expert weighs as much as its own AUROC is above chance. The weights of each kind sum to 1, because every added
    expert increases the spread of normal scores. Those of the logical experts sum to less if together they detect few
    of the synthetic logical anomalies: a texture has no composition, and its structural anomalies would drown in their
    noise.

    Args:
        config: The fusion; its rule is used.
        selection: Base and candidates of each kind, and the required gain.
        normal: Raw scores of held-out normal images by fitted expert, each of shape (N,), N at least 2. Base and
            candidates that are not fitted are left out.
        synthetic: Raw scores of synthetic anomalies made from normal images, by kind; NaN where an expert lacks a text.
            The experts are compared on the anomalies that all have.
        known: Raw scores of known defects, by family.

    Returns:
        The selection; without any anomalies it contains the base alone. An expert without scores of anomalies, because
        they lack its texts, is not judged: it is selected if it is in a base, with the mean weight of the others.

    Raises:
        FitError: A score of a normal image is not finite.
    """
    found = {**synthetic, **(known or {})}
    judged = [name for name in normal if all(name in raw for raw in found.values())]
    complete = {kind: without_gaps(raw, judged) for kind, raw in found.items()}
    counts = {kind: len(next(iter(raw.values()), ())) for kind, raw in complete.items()}
    calibrations = Fusion.fit(config.model_copy(update={"weights": {}}), normal).experts
    anomalies = telling_anomalies(
        normal,
        {kind: raw for kind, raw in complete.items() if counts[kind]},
        [name for name in selection.surface.base if name in judged],
        [name for name in (*selection.arrangement.base, *selection.arrangement.candidates) if name in judged],
    )

    def fused(*kinds: Mapping[str, float]) -> Separation:
        weights = _voices(*kinds)
        chosen = {name: calibrations[name] for name, weight in weights.items() if weight}
        fusion = Fusion(config.model_copy(update={"weights": weights}), chosen, chosen)

        def scores(raw: Mapping[str, FloatArray]) -> FloatArray:
            return fusion.fuse_scores({name: raw[name] for name in chosen})

        return Separation(scores(normal), {kind: scores(raw) for kind, raw in anomalies.items()})

    alone = {
        name: Separation(normal[name], {kind: raw[name] for kind, raw in anomalies.items()}).aurocs() for name in judged
    }
    base: list[dict[str, float]] = []
    selected: list[dict[str, float]] = []
    voices: list[dict[str, float]] = []
    trials: dict[str, Trial] = {}
    lack: dict[str, float] = {}
    for label, kind, families in (
        ("surface", selection.surface, _STRUCTURAL),
        ("arrangement", selection.arrangement, _LOGICAL),
    ):
        own = {name: mean_auroc(alone[name], families) for name in (*kind.base, *kind.candidates) if name in judged}
        weights = {name: max(value - 0.5, _LEAST_WEIGHT) for name, value in own.items()}
        together = {name: weights[name] for name in kind.base if name in judged}
        base.append(dict(together))
        for name in sorted((name for name in kind.candidates if name in judged), key=lambda name: -own[name]):
            more = {**together, name: weights[name]}
            trials[name] = _trial(fused(together) if together else None, fused(more), families, selection.least_gain)
            if trials[name].is_passed:
                together = more
        selected.append(together)
        lack[label] = 1.0 - (mean_auroc(fused(together).aurocs(), families) if together else 0.5)
        middle = float(np.mean(list(together.values()))) if together else 1.0
        unjudged = [name for name in kind.base if name in normal and name not in judged]
        voices.append(_voices({**together, **dict.fromkeys(unjudged, middle)}))
    surface, arrangement = voices
    confidence = 1.0
    if selected[1] and any(counts.values()):
        reached = mean_auroc(fused(selected[1]).aurocs(), _LOGICAL)
        confidence = min(max((reached - 0.5) / (_CERTAIN - 0.5), 0.0), 1.0)
    chosen = {**surface, **{name: confidence * weight for name, weight in arrangement.items()}}
    seen = {name: weight for name, weight in chosen.items() if name in judged}
    return ExpertSelection(
        synthetic_anomalies={kind: counts[kind] for kind in synthetic},
        telling_anomalies={kind: len(next(iter(raw.values()))) for kind, raw in anomalies.items() if kind in synthetic},
        normal_images=len(next(iter(normal.values()))),
        known_defects={family: counts[family] for family in known or {}},
        weights_without_known=choose_experts(config, selection, normal, synthetic).weights if known else None,
        least_gain=selection.least_gain,
        base_auroc=fused(*base).aurocs() if any(base) else {},
        fused_auroc=fused(seen).aurocs() if seen else {},
        lack=lack,
        experts={
            **{
                name: CandidateExpert(
                    weight=chosen.get(name, 0.0),
                    auroc=alone.get(name, {}),
                    trial=trials.get(name),
                    is_judged=name in judged,
                )
                for name in normal
            },
            **{
                name: CandidateExpert(weight=0.0, auroc={}, is_fitted=False)
                for name in selection.experts
                if name not in normal
            },
        },
    )


def _voices(*kinds: Mapping[str, float]) -> dict[str, float]:
    """Normalise the weights of each kind of experts to sum to 1."""
    return {name: weight / sum(kind.values()) for kind in kinds for name, weight in kind.items()}


def _trial(before: Separation | None, after: Separation, families: Families, least_gain: float) -> Trial:
    """Compare the experts so far with those and a further one; no expert is at chance."""
    if before is None:
        before = Separation(
            np.zeros_like(after.normal), {kind: np.zeros_like(one) for kind, one in after.anomalies.items()}
        )
    reached = mean_auroc(before.aurocs(), families)
    return Trial(
        gain=mean_auroc(after.aurocs(), families) - reached,
        lowest=after.lowest_gain(before, families),
        asked=least_gain * max(1.0 - reached, _LEAST_LACK),
    )
