"""Result of a fit."""

from __future__ import annotations

from pydantic import Field

from uniad_ray.config.base import StrictModel


class FittedBundle(StrictModel):
    """Fitted bundle of one category.

    Attributes:
        category: Category.
        version: Version of the bundle.
        digest: SHA-256 of its manifest.
        method: Calibration method: `holdout`, `cross_fit`, `validation_split` or `altered_copies`.
        fit_images: Number of normal images in the fit.
        held_out_images: Number of held-out scores that set the threshold.
        threshold: Threshold on the calibrated scale.
        skipped: Reason by source URI, for training images that could not be decoded.
        unusual: Finding by source URI, for normal images that differ from the others. Unless accepted, they keep the
            verified bundle from being published.
        published: Whether the category's pointer now names this version.
        recomputed: Fields of the sidecar that were computed again, because its weights, options or code differ.
        known_defects: Number of known defects that were given.
        used_known_defects: Whether the expert selection used them; a few are not enough.
        excluded: Reason by source URI, for images that were left out on request.
        twins: Number of normal images that show the picture of another one; each picture counts once.
        false_positive_rate: Fraction of normal images asked for above the threshold.
        threshold_method: `empirical`, `generalised_pareto` or `gaussian_tail`.
        rate_interval: 90 % interval of the fraction of new normal images above the threshold.
        own_threshold: Threshold of the version that was published before, if a user had set it. It is kept if nothing
            but the threshold differs: `version` and `threshold` are then those of that version.
        large_images: Experts that the category has because its images are large; empty if they are not.
        value_range: Values of 16-bit images that become black and white; None for images with 8 bits.
        highest: Score by source URI of the normal images that score highest when held out, the highest first.
    """

    category: str
    version: str
    digest: str
    method: str
    fit_images: int
    held_out_images: int
    threshold: float
    skipped: dict[str, str]
    unusual: dict[str, str]
    published: bool
    recomputed: tuple[str, ...] = ()
    known_defects: int = 0
    large_images: tuple[str, ...] = ()
    used_known_defects: bool = False
    excluded: dict[str, str] = Field(default_factory=dict)
    twins: int = 0
    false_positive_rate: float | None = None
    threshold_method: str | None = None
    rate_interval: tuple[float, float] | None = None
    own_threshold: float | None = None
    value_range: tuple[int, int] | None = None
    highest: dict[str, float] = Field(default_factory=dict)


class FitReport(StrictModel):
    """Result of a fit.

    Attributes:
        bundles: Root of the bundles.
        fitted: Fitted bundles, one per category.
        failed: Reason by category, for categories that failed; they publish no bundle.
    """

    bundles: str
    fitted: tuple[FittedBundle, ...]
    failed: dict[str, str]
