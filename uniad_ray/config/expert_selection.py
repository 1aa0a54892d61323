"""Configuration of the expert selection."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from uniad_ray.config.base import StrictModel


class ExpertGroupConfig(StrictModel):
    """Experts of one kind of anomaly, for the expert selection."""

    base: tuple[str, ...] = Field(default=(), description="Experts that are always selected.")
    candidates: tuple[str, ...] = Field(
        default=(), description="Experts that are selected if they improve on those selected before them."
    )
    train_from: float = Field(
        default=0.025,
        ge=0,
        le=1,
        description="Train a student for candidates only if the experts that need none lack at least this to an AUROC "
        "of 1 on synthetic anomalies of this kind, and if the first of several trainings shows a gain; 0 always "
        "trains. A few dozen images cannot resolve less than 0.025.",
    )


class ExpertSelectionConfig(StrictModel):
    """Expert selection: chooses the experts of a category on synthetic anomalies of held-out normal images."""

    surface: ExpertGroupConfig = Field(
        default=ExpertGroupConfig(),
        description="Experts for structural anomalies, selected on synthetic surface defects.",
    )
    arrangement: ExpertGroupConfig = Field(
        default=ExpertGroupConfig(),
        description="Experts for logical anomalies, selected on synthetic changes of content and position.",
    )
    segments: tuple[str, ...] = Field(
        default=(),
        description="Fields with segments, for synthetic anomalies that change parts. The images use them in turn, so "
        "that no expert is judged on its own segmentation alone. Without any, only halves of images are joined.",
    )
    images: int = Field(
        default=8, ge=2, le=1000, description="Maximum number of normal images for synthetic anomalies."
    )
    fewest_known_defects: int = Field(
        default=8,
        ge=2,
        description="Fewest known defects of a category that are used; fewer tell little more than chance.",
    )
    captions: bool = Field(
        default=False,
        description="Ask the vision-language model about synthetic anomalies too. By default they have no text, so "
        "that experts that need one are not judged and are left out, unless they are in a base.",
    )
    fewest_training_images: int = Field(
        default=20,
        ge=2,
        description="Fewest normal images that a student must learn from to be trained; in cross-fitting, each of two "
        "students learns from half of the images. A student of which `train_from` is 0 is always trained.",
    )
    least_gain: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Minimum gain for a candidate to be selected, as a fraction of what the experts before it lack to "
        "an AUROC of 1 on these synthetic anomalies.",
    )

    @field_validator("segments", mode="before")
    @classmethod
    def _as_several(cls, value: object) -> object:
        # Bundles of earlier versions have one field, or null.
        return () if value is None else (value,) if isinstance(value, str) else value

    @property
    def experts(self) -> tuple[str, ...]:
        """All experts of both kinds."""
        kinds = (self.surface, self.arrangement)
        return tuple(name for kind in kinds for name in (*kind.base, *kind.candidates))

    @model_validator(mode="after")
    def _has_a_base(self) -> Self:
        if not self.surface.base and not self.arrangement.base:
            raise ValueError("surface.base or arrangement.base must name an expert")
        return self
