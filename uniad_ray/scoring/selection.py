"""The stored result of an expert selection: weights, and the reason for each expert."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FusionConfig

Untrained = Literal["few_images", "no_gain"] | None
"""Why the students of a category are not trained, or not trained twice; None if they are, or if others lack little."""


class Trial(StrictModel):
    """The trial of a candidate.

    Attributes:
        gain: Increase of the mean AUROC over the base and the selected better experts of its kind, on the families of
            its kind.
        lowest: Gain that is reached with 95 % certainty, by a paired bootstrap.
        asked: Required gain.
    """

    gain: float
    lowest: float
    asked: float

    @property
    def is_passed(self) -> bool:
        """Whether the candidate is selected: its gain is large enough, and not chance."""
        return self.gain >= self.asked and self.lowest > 0.0


class CandidateExpert(StrictModel):
    """Decision of the expert selection for one expert.

    Attributes:
        weight: Weight in the fused score; 0 if the expert is not selected.
        auroc: AUROC of the expert alone on synthetic anomalies and known defects, by family; 0.5 is chance.
        trial: Its trial; None for an expert of the base.
        is_fitted: Whether it was fitted; False if its student was not worth a training.
        is_judged: Whether there were anomalies to judge it on. Synthetic anomalies have no text of a vision-language
            model unless the selection asks for it.
    """

    weight: float
    auroc: dict[str, float]
    trial: Trial | None = None
    is_fitted: bool = True
    is_judged: bool = True


class ExpertSelection(StrictModel):
    """Result of the expert selection of a category.

    Attributes:
        synthetic_anomalies: Number of synthetic anomalies by kind.
        telling_anomalies: Number by kind of those that the experts are judged on; of logical ones, those that break a
            rule and whose patches are normal.
        normal_images: Number of held-out normal images.
        least_gain: Required gain of an expert, as a fraction of the gap to an AUROC of 1.
        base_auroc: AUROC of the base alone, by family of synthetic anomalies.
        fused_auroc: AUROC of the fused selected experts, by family.
        lack: What the selected experts of each kind (`surface`, `arrangement`) lack together to an AUROC of 1 on the
            families of this kind.
        experts: Decision by expert.
        known_defects: Number of known defects by type: `known_structural`, `known_logical`, and `known` if unknown.
        weights_without_known: The weights that would have been chosen without them; None if there are none.
        untrained: Why experts of a student are not fitted: the others lack little (None), there are `few_images` to
            learn from, or `no_gain` was seen after the first training.
    """

    synthetic_anomalies: dict[str, int]
    telling_anomalies: dict[str, int] = Field(default_factory=dict)
    normal_images: int
    least_gain: float
    base_auroc: dict[str, float]
    fused_auroc: dict[str, float]
    lack: dict[str, float] = Field(default_factory=dict)
    experts: dict[str, CandidateExpert]
    known_defects: dict[str, int] = Field(default_factory=dict)
    weights_without_known: dict[str, float] | None = None
    untrained: Untrained = None

    @property
    def weights(self) -> dict[str, float]:
        """Weight by expert."""
        return {name: expert.weight for name, expert in self.experts.items()}

    def reason(self, expert: str) -> str:
        """Explain why an expert is selected or not."""
        decided = self.experts[expert]
        judged_on = "synthetic anomalies and known defects" if self.known_defects else "synthetic anomalies"
        trial = decided.trial
        if not decided.is_fitted:
            if self.untrained == "no_gain":
                return "its student is left out: after its first training, no expert of it had the required gain"
            if self.untrained == "few_images":
                return "its student is not trained: there are too few images to learn from"
            lack = max(self.lack.values())
            return f"its student is not trained: without it, synthetic anomalies lack only {lack:.3f} to an AUROC of 1"
        if not decided.is_judged:
            selected = "always selected" if decided.weight else "not selected"
            return f"{selected}, not judged: synthetic anomalies have no text; see fusion.selection.captions"
        if trial is None:
            reason = "always selected" if decided.weight else f"no better than chance on {judged_on}"
        elif trial.is_passed:
            reason = f"adds {trial.gain:.3f} to the AUROC on {judged_on}, at least the required {trial.asked:.3f}"
        elif trial.gain >= trial.asked:
            reason = f"would add {trial.gain:.3f} to the AUROC on {judged_on}, which may be chance"
        else:
            reason = f"would add {trial.gain:.3f} to the AUROC on {judged_on}, less than the required {trial.asked:.3f}"
        if self.weights_without_known is None:
            return reason
        return f"{reason}; weight {self.weights_without_known[expert]:.2f} without known defects"


def with_selected_weights(config: FusionConfig, record: ExpertSelection | None) -> FusionConfig:
    """Return the fusion with the weights of an expert selection, if there is one."""
    return config if record is None else config.model_copy(update={"weights": record.weights})
