"""The root configuration of a fit: which networks, which experts, how they are calibrated and fused."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from uniad_ray.config.base import StrictModel


class ComponentConfig(StrictModel):
    """A perceiver or an expert, named by its class, with the configuration that its class defines."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, populate_by_name=False)

    class_path: str = Field(
        alias="class", pattern=r"^[\w.]+:\w+$", description="Where the class is, as `package.module:Class`."
    )
    config: dict[str, Any] = Field(
        default_factory=dict, description="Options of that class; checked by its config_model."
    )


class NormalImagesConfig(StrictModel):
    """Which normal images of a category are fitted on, and what makes up for a lack of them."""

    most: int | None = Field(
        default=None, ge=1, description="Fit on at most so many different ones, drawn by hash; null takes all."
    )
    draw: int = Field(default=0, ge=0, description="Number of the draw; another one draws other images.")
    fewest: int = Field(
        default=4,
        ge=2,
        le=1000,
        description="Where a fit with one image held out would have fewer different ones, altered copies are fitted as "
        "well. A single one is calibrated on such copies, so that its threshold is a guess.",
    )

    def copies_of_each(self, images: int) -> int:
        """How many altered copies each of so many different images has; of a single one as many again are held out."""
        if images == 1:
            return 2 * self.fewest - 1
        return max(0, math.ceil(self.fewest / (images - 1)) - 1)


class CalibrationConfig(StrictModel):
    """How scores of normal images that no expert has seen set mean, deviation and threshold."""

    holdout: float = Field(
        default=0.2, gt=0, lt=0.9, description="Share of the normal images kept out of the fit, chosen by hash."
    )
    min_images: int = Field(
        default=50,
        ge=2,
        description="With fewer normal images than this, cross-fitting takes the place of the hold-out.",
    )
    refit_below: int = Field(
        default=500,
        ge=0,
        description="With fewer normal images than this, all but the students is fitted once more after a hold-out, on "
        "all of them; the threshold is then, if anything, too high. 0 never does.",
    )
    folds: int = Field(
        default=5,
        ge=2,
        description="Parts in cross-fitting; with no more images than twice this, each image is its own part.",
    )
    use_validation_split: bool = Field(
        default=True,
        description="Calibrate on the source's own `validation` split where it holds at least `min_validation` images.",
    )
    min_validation: int = Field(default=20, ge=2, description="Fewer validation images than this are fitted instead.")
    false_positive_rate: float = Field(
        default=0.01, gt=0, lt=1, description="Share of normal images that the threshold may call anomalous."
    )


class GateConfig(StrictModel):
    """Which experts of a set take part is chosen for each category, on edits of held-out normal images."""

    base: tuple[str, ...] = Field(min_length=1, description="Experts that always take part, each with weight 1.")
    surface: tuple[str, ...] = Field(
        default=(), description="Experts of structural anomalies, which are judged by edits of the surface."
    )
    arrangement: tuple[str, ...] = Field(
        default=(), description="Experts of logical anomalies, which are judged by edits of what there is and where."
    )
    segments: str | None = Field(
        default=None, description="Field with the segments of the object edits; without it there are only blind edits."
    )
    images: int = Field(default=24, ge=2, le=1000, description="The most held-out normal images that are edited.")
    weights: tuple[float, ...] = Field(
        default=(0.5, 1.0), min_length=1, description="What an expert that takes part may be weighted by."
    )
    least_gain: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of what the experts before it lack to an AUROC of 1 on those edits that an expert has to "
        "add to take part.",
    )


class FusionConfig(StrictModel):
    """How the scores of several experts become one."""

    rule: Literal["sum", "excess", "maps"] = Field(
        default="sum",
        description="`sum` adds calibrated scores (UniAD, eq. 15). `excess` adds what each says beyond normal: next "
        "to nothing below it, the deviations up to four, of more the logarithm; so an expert that sees nothing adds "
        "nothing, and a loud one does not drown the others. `maps` adds raw maps and takes the maximum (TMUAD, eq. 5).",
    )
    groups: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Experts by group whose raw scores are added before they are calibrated as one (UniAD, eq. 14).",
    )
    weights: dict[str, float] = Field(
        default_factory=dict, description="Weight by group, or by expert of no group; 1 where none is given."
    )

    gate: GateConfig | None = Field(
        default=None, description="Chooses experts and their weights for each category; `weights` must be empty then."
    )

    @model_validator(mode="after")
    def _gate_chooses_weights(self) -> Self:
        if self.gate is not None and (self.weights or self.groups or self.rule == "maps"):
            raise ValueError("a gate chooses the weights: leave weights and groups out, and set another rule than maps")
        return self

    @model_validator(mode="after")
    def _one_group_each(self) -> Self:
        members = [member for group in self.groups.values() for member in group]
        twice = sorted({member for member in members if members.count(member) > 1})
        if twice:
            raise ValueError(f"fusion.groups names {', '.join(twice)} twice; an expert belongs to one group at most")
        return self


class FitConfig(StrictModel):
    """Everything that decides what a fitted bundle is; a profile is one of these as YAML."""

    name: str = Field(description="Name of the profile.")
    input_size: int = Field(
        default=256, ge=32, le=4096, description="Side of the square that images are resized to, pixels."
    )
    map_size: int = Field(default=64, ge=8, le=1024, description="Side of the anomaly maps, map pixels.")
    batch_size: int = Field(default=16, ge=1, le=1024, description="Images that pass the networks together.")
    seed: int = Field(default=0, ge=0, description="Seed of everything random in the fit.")
    perceivers: dict[str, ComponentConfig] = Field(
        description="Networks by name; only those that are needed are loaded."
    )
    experts: dict[str, ComponentConfig] = Field(description="Experts by name.")
    expert_sets: dict[str, tuple[str, ...]] = Field(description="Named choices of experts.")
    expert_set: str = Field(description="The choice in force.")
    normal_images: NormalImagesConfig = NormalImagesConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    fusion: FusionConfig = Field(default=FusionConfig(), description="Fusion of the sets that `fusions` does not name.")
    fusions: dict[str, FusionConfig] = Field(default_factory=dict, description="Fusion by expert set.")

    _origin: str = PrivateAttr(default="the configuration")

    @property
    def origin(self) -> str:
        """File or bundle that this came from, for messages; part of no dump, digest or comparison."""
        return self._origin

    def with_origin(self, origin: str) -> Self:
        """The same configuration with another origin."""
        copied = self.model_copy()
        copied._origin = origin
        return copied

    def __eq__(self, other: object) -> bool:
        """Whether all options are equal, wherever they came from."""
        return isinstance(other, FitConfig) and self.__dict__ == other.__dict__

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if self.expert_set not in self.expert_sets:
            raise ValueError(
                f"expert_set is {self.expert_set!r}; expert_sets has {', '.join(sorted(self.expert_sets))}"
            )
        for set_name, members in self.expert_sets.items():
            if not members:
                raise ValueError(f"expert_sets.{set_name} is empty; name at least one expert")
            unknown = sorted(set(members) - set(self.experts))
            if unknown:
                raise ValueError(
                    f"expert_sets.{set_name} names {unknown}; experts has {', '.join(sorted(self.experts))}"
                )
        if unknown := sorted(set(self.fusions) - set(self.expert_sets)):
            raise ValueError(f"fusions names {unknown}; expert_sets has {', '.join(sorted(self.expert_sets))}")
        self._check_fusion("fusion", self.fusion, tuple(self.experts))
        for name, fusion in self.fusions.items():
            self._check_fusion(f"fusions.{name}", fusion, self.expert_sets[name])
        return self

    def _check_fusion(self, key: str, fusion: FusionConfig, experts: tuple[str, ...]) -> None:
        known = ", ".join(sorted(experts))
        grouped = {member for members in fusion.groups.values() for member in members}
        if unknown := sorted(grouped - set(experts)):
            raise ValueError(f"{key}.groups names {unknown}; there are the experts {known}")
        if taken := sorted(set(fusion.groups) & set(self.experts)):
            raise ValueError(f"{key}.groups has {taken}, which are experts; give the groups other names")
        terms = set(fusion.groups) | (set(experts) - grouped)
        if unknown := sorted(set(fusion.weights) - terms):
            raise ValueError(
                f"{key}.weights names {unknown}; there are the groups and ungrouped experts {', '.join(sorted(terms))}"
            )
        gate = fusion.gate
        if gate is not None and sorted((*gate.base, *gate.surface, *gate.arrangement)) != sorted(experts):
            raise ValueError(f"{key}.gate must name each of {known} once, in base, surface or arrangement")

    @property
    def chosen_experts(self) -> tuple[str, ...]:
        """Names of the experts in force, in order."""
        return self.expert_sets[self.expert_set]

    @property
    def chosen_fusion(self) -> FusionConfig:
        """How the experts in force are fused."""
        return self.fusions.get(self.expert_set, self.fusion)
