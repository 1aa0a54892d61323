"""The selected experts of a category, their weights, and the reason for each, as a bundle stores them."""

from __future__ import annotations

from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FusionConfig


class CandidateExpert(StrictModel):
    """What the expert selection decided of one expert.

    Attributes:
        weight: Weight in the fused score; 0 where the expert takes no part.
        auroc: By family of edits, how well the expert alone tells them from normal images; 0.5 is chance.
        gain: What it adds to the AUROC of the base and of the better experts of its kind that take part, on the edits
            that it is judged by; None for one of the base.
        asked: What it has to add; None for one of the base.
    """

    weight: float
    auroc: dict[str, float]
    gain: float | None
    asked: float | None


class ExpertSelection(StrictModel):
    """How the experts of a category were chosen.

    Attributes:
        synthetic_anomalies: Number of synthetic anomalies by kind.
        normal_images: Held-out normal images that they are told from.
        least_gain: Share of what is lacking to an AUROC of 1 that an expert has to add.
        base_auroc: AUROC of the base alone by family of edits.
        fused_auroc: AUROC of the experts that take part, together.
        experts: The decision by expert.
    """

    synthetic_anomalies: dict[str, int]
    normal_images: int
    least_gain: float
    base_auroc: dict[str, float]
    fused_auroc: dict[str, float]
    experts: dict[str, CandidateExpert]

    @property
    def weights(self) -> dict[str, float]:
        """Weight by expert."""
        return {name: expert.weight for name, expert in self.experts.items()}

    def reason(self, expert: str) -> str:
        """Why an expert takes part or not, in words."""
        decided = self.experts[expert]
        if decided.gain is None or decided.asked is None:
            return "always takes part"
        verb, than = ("adds", "of at least") if decided.weight else ("would add", "less than")
        return f"{verb} {decided.gain:.3f} to the AUROC on edited normal images, {than} {decided.asked:.3f} asked for"


def with_selected_weights(config: FusionConfig, record: ExpertSelection | None) -> FusionConfig:
    """The fusion with the weights that an expert selection chose, if there was one."""
    return config if record is None else config.model_copy(update={"weights": record.weights})
