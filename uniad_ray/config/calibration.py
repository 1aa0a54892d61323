"""How scores are calibrated, and where their thresholds are."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from uniad_ray.config.base import StrictModel


class CalibrationConfig(StrictModel):
    """Sets mean, deviation and threshold from scores of normal images that no expert was fitted on."""

    holdout: float = Field(
        default=0.2, gt=0, lt=0.9, description="Fraction of the normal images held out of the fit, chosen by hash."
    )
    holdout_from: int = Field(
        default=500,
        ge=2,
        description="Minimum number of normal images for a hold-out. With fewer, cross-fitting is used: every image is "
        "judged by experts that have not seen it, and the stored experts are fitted on all images.",
    )
    folds: int = Field(
        default=5,
        ge=2,
        description="Number of folds in cross-fitting. With at most twice as many images, each image is its own fold.",
    )
    use_validation_split: bool = Field(
        default=True,
        description="Calibrate on the `validation` split of the source if it has at least `min_validation` images.",
    )
    min_validation: int = Field(
        default=20, ge=2, description="Minimum size of the `validation` split; a smaller one is used for the fit."
    )
    false_positive_rate: float = Field(
        default=0.01, gt=0, lt=1, description="Fraction of normal images that may score above the threshold."
    )
    review_rate: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Fraction of normal images that may score above a second, lower threshold. Images between the two "
        "get the decision `review`; null makes only two decisions.",
    )

    @model_validator(mode="after")
    def _review_is_wider(self) -> Self:
        if self.review_rate is not None and self.review_rate <= self.false_positive_rate:
            raise ValueError(
                f"review_rate is {self.review_rate:g}; it must be above false_positive_rate, which is "
                f"{self.false_positive_rate:g}"
            )
        return self
