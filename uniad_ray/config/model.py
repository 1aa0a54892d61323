"""The root configuration of a fit: networks, experts, calibration and fusion."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from uniad_ray.config.base import StrictModel
from uniad_ray.config.calibration import CalibrationConfig
from uniad_ray.config.class_lists import Classes, classes_of_category
from uniad_ray.config.expert_selection import ExpertSelectionConfig
from uniad_ray.config.large_images import LargeImagesConfig
from uniad_ray.config.normal_images import NormalImagesConfig
from uniad_ray.config.region import RegionMask
from uniad_ray.config.spill import SpillConfig
from uniad_ray.config.value_range import ValueRangeOption
from uniad_ray.errors import ConfigError

SMALLEST_SIDE: Final = 32
"""Minimum height and width of decoded images, pixels."""
_LARGEST_SIDE: Final = 4096

Side = Annotated[int, Field(ge=SMALLEST_SIDE, le=_LARGEST_SIDE)]


class ClassConfig(StrictModel):
    """An extractor or an expert: its class, and the configuration that the class defines."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, populate_by_name=False)

    class_path: str = Field(
        alias="class", pattern=r"^[\w.]+:\w+$", description="Path of the class, as `package.module:Class`."
    )
    config: dict[str, Any] = Field(
        default_factory=dict, description="Options of the class, checked by its `config_model`."
    )

    def with_options(self, **options: Any) -> Self:
        """The same class with other values of some options."""
        return self.model_copy(update={"config": {**self.config, **options}})


class FusionConfig(StrictModel):
    """How the scores of several experts are combined."""

    rule: Literal["sum", "excess", "maps"] = Field(
        default="sum",
        description="`sum` adds calibrated scores (UniAD, eq. 15). `excess` adds each expert's excess over normal: "
        "almost nothing below it, the deviations up to four, and their logarithm beyond. An expert without a finding "
        "adds nothing, and a very high score does not hide the others. `maps` adds raw maps and takes the maximum "
        "(TMUAD, eq. 5).",
    )
    excess_from: float = Field(
        default=0.0,
        ge=0,
        le=4,
        description="Standard deviations above normal from which the score of an expert counts with the rule "
        "`excess`, so that the small deviations that every expert has on normal images do not add up. Maps are added "
        "from 0, because most anomalous pixels deviate less than that, and then brought to the scale of the scores.",
    )
    groups: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Groups of experts; raw scores of a group are added and calibrated as one (UniAD, eq. 14).",
    )
    weights: dict[str, float] = Field(
        default_factory=dict, description="Weight of each group, and of each expert without a group; default 1."
    )

    selection: ExpertSelectionConfig | None = Field(
        default=None, description="Selects experts and their weights for each category; `weights` must then be empty."
    )

    def without(self, experts: Collection[str]) -> Self:
        """The fusion of the other experts."""
        if not experts:
            return self
        groups = {name: _others(own, experts) for name, own in self.groups.items()}
        changes: dict[str, Any] = {
            "groups": {name: own for name, own in groups.items() if own},
            "weights": {name: weight for name, weight in self.weights.items() if name not in experts},
        }
        if self.selection is not None:
            kinds = {"surface": self.selection.surface, "arrangement": self.selection.arrangement}
            fewer = {
                label: kind.model_copy(
                    update={"base": _others(kind.base, experts), "candidates": _others(kind.candidates, experts)}
                )
                for label, kind in kinds.items()
            }
            changes["selection"] = self.selection.model_copy(update=fewer)
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _selection_sets_weights(self) -> Self:
        if self.selection is not None and (self.weights or self.groups or self.rule == "maps"):
            raise ValueError(
                "the expert selection sets the weights: remove weights and groups, and use a rule other than maps"
            )
        return self

    @model_validator(mode="after")
    def _one_group_each(self) -> Self:
        members = [member for group in self.groups.values() for member in group]
        twice = sorted({member for member in members if members.count(member) > 1})
        if twice:
            raise ValueError(f"fusion.groups names {', '.join(twice)} twice; put each expert in one group at most")
        return self


def _others(names: tuple[str, ...], experts: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in experts)


class FitConfig(StrictModel):
    """The complete configuration of a fitted bundle. A profile is one of these as YAML."""

    name: str = Field(description="Name of the profile.")
    longest_side: Side = Field(
        default=640,
        description="Maximum height and width of decoded images, pixels. Larger images are reduced, smaller ones are "
        "never enlarged, and the aspect ratio is kept.",
    )
    image_size: tuple[Side, Side] | None = Field(
        default=None,
        description="Height and width of all decoded images of a category, pixels; other images are stretched to it. "
        "null takes the median size of the category's normal images, reduced to `longest_side`. A bundle stores the "
        "result.",
    )
    value_range: ValueRangeOption = None
    regions: dict[str, RegionMask] = Field(
        default_factory=dict,
        description="Part of the images that counts, by category; set by `fit --region`. A bundle has that of its "
        "category.",
    )
    map_size: int = Field(
        default=64,
        ge=8,
        le=1024,
        description="Side of the anomaly maps, map pixels; an expert may set its own. The fused map has that of the "
        "largest.",
    )
    large_images: LargeImagesConfig | None = Field(
        default=None,
        description="Experts and maps for categories with large images. Null in the bundle of such a category.",
    )
    batch_size: int = Field(default=16, ge=1, le=1024, description="Number of images per forward pass.")
    seed: int = Field(default=0, ge=0, description="Seed of all randomness in the fit.")
    classes: Classes = Field(
        default=(),
        description="Classes of the objects in the images, for extractors with an option `classes` that set none: a "
        "list of words; or the name of a list, such as `mvtec-loco/breakfast_box`, or `mvtec-loco` for the list of "
        "each category. A bundle has that of its category.",
    )
    extractors: dict[str, ClassConfig] = Field(description="Networks by name; only the needed ones are loaded.")
    experts: dict[str, ClassConfig] = Field(description="Experts by name.")
    expert_sets: dict[str, tuple[str, ...]] = Field(description="Named sets of experts.")
    expert_set: str = Field(description="Name of the expert set to use.")
    normal_images: NormalImagesConfig = NormalImagesConfig()
    spill: SpillConfig = SpillConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    fusion: FusionConfig = Field(default=FusionConfig(), description="Fusion of expert sets without one in `fusions`.")
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

    @property
    def decoded_size(self) -> tuple[int, int]:
        """Height and width that images are decoded to, pixels.

        Raises:
            ConfigError: `image_size` is null; `archive.image_size.with_image_size` sets it.
        """
        if self.image_size is None:
            raise ConfigError(f"{self.origin}: image_size is not set; fit the category again")
        return self.image_size

    @property
    def region(self) -> RegionMask | None:
        """Part of the images that counts, in the configuration of one category; None if all of it does."""
        return next(iter(self.regions.values()), None)

    def for_images(self, height: int, width: int) -> Self:
        """The configuration of a category: with experts and maps for large images if its images are large.

        Args:
            height: Median height of the category's normal images, pixels.
            width: Median width, pixels.

        Raises:
            ConfigError: Small images would leave the expert set in use without an expert.
        """
        large = self.large_images
        if large is None:
            return self
        if height * width >= large.pixels:
            experts = {
                name: one.with_options(map_size=large.map_size) if name in large.experts else one
                for name, one in self.experts.items()
            }
            batch_size = min(self.batch_size, large.batch_size)
            return self.model_copy(update={"large_images": None, "experts": experts, "batch_size": batch_size})
        if not self.chosen_experts:
            raise ConfigError(
                f"{self.origin}: expert_set {self.expert_set} is for images of at least {large.pixels:,} pixels, and "
                f"these have {width} x {height}; use another expert_set, or lower large_images.pixels"
            )
        return self

    def of_category(self, category: str) -> Self:
        """The configuration of one category: with its own region and its own list of classes.

        Raises:
            ConfigError: The chosen class lists have none for this category.
        """
        own = {name: mask for name, mask in self.regions.items() if name == category}
        try:
            classes = classes_of_category(self.classes, category)
        except ConfigError as error:
            raise ConfigError(f"{self.origin}: {error}") from error
        if own == self.regions and classes == self.classes:
            return self
        return self.model_copy(update={"regions": own, "classes": classes})

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
        if self.large_images is not None and (unknown := sorted(set(self.large_images.experts) - set(self.experts))):
            raise ValueError(f"large_images.experts names {unknown}; experts has {', '.join(sorted(self.experts))}")
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
        selection = fusion.selection
        if selection is not None and sorted(selection.experts) != sorted(experts):
            raise ValueError(f"{key}.selection must name each of {known} once, in surface or arrangement")

    @property
    def chosen_experts(self) -> tuple[str, ...]:
        """Names of the experts in use, in order; without those of large images until the images prove to be large."""
        return _others(self.expert_sets[self.expert_set], self._only_for_large_images)

    @property
    def chosen_fusion(self) -> FusionConfig:
        """The fusion of the experts in use."""
        return self.fusions.get(self.expert_set, self.fusion).without(self._only_for_large_images)

    @property
    def _only_for_large_images(self) -> tuple[str, ...]:
        return () if self.large_images is None else self.large_images.experts
