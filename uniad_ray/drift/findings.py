"""Findings of drift, in words: what changed, compared with what, and how much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.drift.samples import SampledImage, expert_values, features, values
from uniad_ray.drift.statistics import Difference, Values, along_directions, compare

Measure = Literal["size", "brightness", "features", "score", "expert"]
Reference = Literal["calibration", "last nights"]

_COLUMNS: Final[dict[Measure, tuple[str, ...]]] = {
    "size": ("width", "height"),
    "brightness": ("brightness",),
    "features": (),
    "score": ("score",),
}
"""Measures of an image, and their columns in a sample; the scores of the experts come on top."""
_DIRECTIONS: Final = 4
"""Directions in which features are compared. With eight, no more changes of six drawn products were found."""
_REFERENCE_IMAGES: Final[dict[Reference, str]] = {
    "calibration": "the images of the fit",
    "last nights": "the last nights",
}


class DriftOptions(StrictModel):
    """When a difference counts as drift.

    Attributes:
        images: Images to measure per category and night, at most.
        nights: Last nights to compare with; 0 compares with the images of the fit only.
        min_images: Images that a category needs, tonight and in what it is compared with.
        psi: Smallest population stability index of a finding.
        probability: Probability of a false finding in a night, by chance alone; shared by all its comparisons.
        brightness_change: Smallest mean change of brightness of a finding, as a share of the brightness before.
        size_change: Smallest mean change of width or height of a finding, as a share of the size before.
        feature_images: Images whose features are compared, at most, of those measured; 0 compares none. On a CPU, the
            network of the default expert sets takes 0.02 s for each, or 0.1 s if the CPU is busy.
    """

    images: int = Field(default=500, ge=10, le=10_000)
    nights: int = Field(default=7, ge=0, le=60)
    min_images: int = Field(default=20, ge=5)
    psi: float = Field(default=0.25, gt=0)
    probability: float = Field(default=0.001, gt=0, lt=0.5)
    brightness_change: float = Field(default=0.05, ge=0)
    size_change: float = Field(default=0.02, ge=0)
    feature_images: int = Field(default=100, ge=0)


class Finding(StrictModel):
    """One measure of one category that changed.

    Attributes:
        category: The category.
        measure: `size`, `brightness`, `features`, `score` (fused) or `expert`.
        expert: The expert whose own scores changed; None for other measures.
        reference: What it is compared with: `calibration` or `last nights`.
        images: Images of tonight that were compared.
        reference_images: Images that they were compared with.
        median: Median of tonight; of a size, that of the side that changed more; of features, the distance from the
            median before in standard deviations, along the direction that changed most.
        reference_median: Median before.
        psi: Population stability index.
        ks: Kolmogorov-Smirnov statistic.
        p_value: Its probability for equal distributions.
        text: The finding as a sentence.
    """

    category: str
    measure: Measure
    expert: str | None = None
    reference: Reference
    images: int
    reference_images: int
    median: float
    reference_median: float
    psi: float
    ks: float
    p_value: float
    text: str


def find_drift(
    tonight: Mapping[str, Sequence[SampledImage]],
    references: Mapping[Reference, Mapping[str, Sequence[SampledImage]]],
    options: DriftOptions,
) -> tuple[Finding, ...]:
    """Compares the samples of a night with its references.

    A finding needs all of these: enough images on both sides, a population stability index above the limit and above
    chance, a Kolmogorov-Smirnov test below the probability, and for size and brightness a change that matters.

    Each expert's own scores are compared too: one expert may drift where its small weight hides it in the fused score,
    and its name says what to look at. With a single expert, the fused score stands for it.

    Features are compared along the few directions in which the images of both samples vary most.

    Many comparisons find something by chance. So `options.probability` is that of a false finding in the whole night:
    each comparison (category x reference x measure, direction or expert) is tested at the probability divided by the
    number of comparisons (Bonferroni). This also holds for scores that depend on each other, as those of the experts of
    one image do. The chance limit of the stability index is that of the same probability.

    Args:
        tonight: Samples by category.
        references: Samples by category, for each reference.
        options: Limits.

    Returns:
        Findings by category, then reference, measure and expert.
    """
    compared = [
        _Compared(category, reference, measure, expert, before[category], tonight[category])
        for category in sorted(tonight)
        for reference, before in references.items()
        if category in before
        for measure, expert in (
            *((measure, None) for measure in _COLUMNS),
            *(("expert", expert) for expert in _experts(tonight[category], before[category])),
        )
    ]
    probability = options.probability / max(1, sum(len(entry.columns) for entry in compared))
    found = (_finding(entry, options, probability) for entry in compared)
    return tuple(finding for finding in found if finding is not None)


@dataclass(frozen=True)
class _Compared:
    """One measure of one category, before and now."""

    category: str
    reference: Reference
    measure: Measure
    expert: str | None
    before: Sequence[SampledImage]
    now: Sequence[SampledImage]

    @cached_property
    def columns(self) -> list[tuple[Values, Values]]:
        """The values that are tested, each on its own: before and now."""
        if self.expert is not None:
            return [(expert_values(self.before, self.expert), expert_values(self.now, self.expert))]
        if self.measure == "features":
            old, new = features(self.before), features(self.now)
            is_known = len(old) > 0 and len(new) > 0 and old.shape[1] == new.shape[1]
            return along_directions(old, new, _DIRECTIONS) if is_known else []
        return [(values(self.before, column), values(self.now, column)) for column in _COLUMNS[self.measure]]


def _experts(now: Sequence[SampledImage], before: Sequence[SampledImage]) -> list[str]:
    """Experts that scored images of both samples; none if there is one alone, which is the fused score."""
    known = [{expert for image in images for expert in image.experts} for images in (now, before)]
    return sorted(known[0] & known[1]) if len(known[0] | known[1]) > 1 else []


def _finding(compared: _Compared, options: DriftOptions, probability: float) -> Finding | None:
    changed = list(_changes(compared, options, probability))
    if not changed:
        return None
    old, new, difference = max(changed, key=lambda change: change[2].ks)
    return Finding(
        category=compared.category,
        measure=compared.measure,
        expert=compared.expert,
        reference=compared.reference,
        images=len(new),
        reference_images=len(old),
        median=float(np.median(new)),
        reference_median=float(np.median(old)),
        psi=difference.psi,
        ks=difference.ks,
        p_value=difference.p_value,
        text=f"{compared.category}: {_words(compared, old, new)}",
    )


def _changes(
    compared: _Compared, options: DriftOptions, probability: float
) -> Iterator[tuple[Values, Values, Difference]]:
    """The columns of a measure that changed: values before, values now and their difference."""
    smallest = {"size": options.size_change, "brightness": options.brightness_change}.get(compared.measure, 0.0)
    for old, new in compared.columns:
        if min(len(old), len(new)) < options.min_images:
            continue
        difference = compare(old, new, probability=probability)
        is_large = difference.shift >= smallest * abs(float(np.median(old)))
        is_unstable = difference.psi >= max(options.psi, difference.chance_psi)
        if is_large and is_unstable and difference.p_value < probability:
            yield old, new, difference


def _words(compared: _Compared, old: Values, new: Values) -> str:
    measure, expert, reference = compared.measure, compared.expert, _REFERENCE_IMAGES[compared.reference]
    if measure == "size":
        return f"image size changed: {_sizes(compared.now)} tonight, {_sizes(compared.before)} in {reference}"
    was, is_now = float(np.median(old)), float(np.median(new))
    if measure == "features":
        return f"images look different than in {reference}: their features moved by {is_now:.1f} standard deviations"
    if measure in ("score", "expert"):
        scores = "scores" if expert is None else f"scores of the expert {expert}"
        if is_now == was:
            return f"{scores} are distributed differently than in {reference} (median {is_now:.2f})"
        side = "higher" if is_now > was else "lower"
        return f"{scores} are {side} than in {reference}: median {is_now:.2f}, was {was:.2f}"
    change = is_now / was - 1 if was else float("inf")
    if abs(change) < 0.01:
        return f"brightness is distributed differently than in {reference} (median {is_now:.0f} of 255)"
    side = "brighter" if change > 0 else "darker"
    return (
        f"images are {side} than in {reference}: median brightness {is_now:.0f} of 255, was {was:.0f} ({change:+.0%})"
    )


def _sizes(images: Sequence[SampledImage]) -> str:
    """The most frequent size of a sample, with its share if there are others."""
    sizes = Counter((image.width, image.height) for image in images if image.width is not None)
    ((width, height), most), total = sizes.most_common(1)[0], sizes.total()
    share = "" if most == total else f" ({most / total:.0%} of the images)"
    return f"{width} x {height} pixels{share}"
