"""The stored result of an expert selection: weights, and the reason for each expert."""

from __future__ import annotations

from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FusionConfig


class CandidateExpert(StrictModel):
    """Decision of the expert selection for one expert.

    Attributes:
        weight: Weight in the fused score; 0 if the expert is not selected.
        auroc: AUROC of the expert alone on synthetic anomalies and known defects, by family; 0.5 is chance.
        gain: Increase of the mean AUROC over the base and the selected better experts of its kind, on the families of
            its kind; None for an expert of the base.
        asked: Required gain; None for an expert of the base.
    """

    weight: float
    auroc: dict[str, float]
    gain: float | None
    asked: float | None


class ExpertSelection(StrictModel):
    """Result of the expert selection of a category.

    Attributes:
        synthetic_anomalies: Number of synthetic anomalies by kind.
        normal_images: Number of held-out normal images.
        least_gain: Required gain of an expert, as a fraction of the gap to an AUROC of 1.
        base_auroc: AUROC of the base alone, by family of synthetic anomalies.
        fused_auroc: AUROC of the fused selected experts, by family.
        experts: Decision by expert.
        known_defects: Number of known defects by type: `known_structural`, `known_logical`, and `known` if unknown.
        weights_without_known: The weights that would have been chosen without them; None if there are none.
    """

    synthetic_anomalies: dict[str, int]
    normal_images: int
    least_gain: float
    base_auroc: dict[str, float]
    fused_auroc: dict[str, float]
    experts: dict[str, CandidateExpert]
    known_defects: dict[str, int] = Field(default_factory=dict)
    weights_without_known: dict[str, float] | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Weight by expert."""
        return {name: expert.weight for name, expert in self.experts.items()}

    def reason(self, expert: str) -> str:
        """Explain why an expert is selected or not."""
        decided = self.experts[expert]
        judged_on = "synthetic anomalies and known defects" if self.known_defects else "synthetic anomalies"
        if decided.gain is None or decided.asked is None:
            reason = "always selected" if decided.weight else f"no better than chance on {judged_on}"
        else:
            verb, than = ("adds", "at least") if decided.weight else ("would add", "less than")
            reason = f"{verb} {decided.gain:.3f} to the AUROC on {judged_on}, {than} the required {decided.asked:.3f}"
        if self.weights_without_known is None:
            return reason
        return f"{reason}; weight {self.weights_without_known[expert]:.2f} without known defects"


def with_selected_weights(config: FusionConfig, record: ExpertSelection | None) -> FusionConfig:
    """Return the fusion with the weights of an expert selection, if there is one."""
    return config if record is None else config.model_copy(update={"weights": record.weights})
