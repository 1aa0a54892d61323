"""The student: one trainable backbone that learns to say what two frozen teachers say (UniAD, section 3.1 to 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import nn

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, ConfigError
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.features.network import (
    Indices,
    NetworkConfig,
    Precision,
    build_network,
    in_parts,
    network_outline,
    normalised_pixels,
)
from uniad_ray.perception.grids import resize_field
from uniad_ray.perception.weights.sources import KeyMapping, WeightSource, load_into, resolve

Shape = tuple[int, int, int]


class InitialWeights(StrictModel):
    """Modules of the student that do not start with random parameters.

    Attributes:
        source: Weights of the whole network.
        key_mapping: How the parameters are named in the file.
        modules: timm's names of the modules that take them, such as `conv_stem` or `blocks.0`.
    """

    source: WeightSource
    key_mapping: KeyMapping = "timm"
    modules: tuple[str, ...] = Field(min_length=1)


class LossWeights(StrictModel):
    """Weight of each loss; 0 switches it off (tables 5 and 6 of the paper).

    Attributes:
        low: Of L_low, the levels of the structural teacher (eq. 3).
        high: Of L_high, its fused features (eq. 4).
        logical: Of L_log, the field of the logical teacher (eq. 10).
    """

    low: NonNegativeFloat = 1.0
    high: NonNegativeFloat = 1.0
    logical: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not (self.low or self.high or self.logical):
            raise ValueError("low, high and logical are all 0; the student would learn nothing")
        return self


class TrainingConfig(StrictModel):
    """How the student is trained, by Adam.

    Attributes:
        iterations: Steps.
        batch_size: Images in a step, of all workers together.
        learning_rate: Highest learning rate.
        schedule: `constant`, or `cosine` from the highest rate to 0.
        warm_up: Steps in which the rate grows linearly to its highest.
        checkpoint_every: Steps from one checkpoint, with its look at the held-out images, to the next.
        held_out: Share of the images that only the held-out loss sees; 0 for none.
        keep: Whether the student of the `best` held-out loss is kept, or the `last`.
        patience: Looks at the held-out images without a better loss after which training stops; None never stops.
        precision: Of the computation; below float32 on CUDA only. Parameters are float32 always.
        cache_bytes: Memory for decoded images and what the teachers say of them; has no influence on the result.
    """

    iterations: PositiveInt = 500
    batch_size: PositiveInt = 4
    learning_rate: PositiveFloat = 0.05
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up: NonNegativeInt = 0
    checkpoint_every: PositiveInt = 50
    held_out: float = Field(default=0.1, ge=0, lt=0.9)
    keep: Literal["best", "last"] = "best"
    patience: PositiveInt | None = None
    precision: Precision = "float32"
    cache_bytes: NonNegativeInt = 1 << 30

    @model_validator(mode="after")
    def _best_needs_held_out(self) -> Self:
        if not self.held_out and (self.keep == "best" or self.patience):
            raise ValueError("keep best and patience need held_out above 0; use keep last without patience")
        return self


class StudentConfig(NetworkConfig):
    """What the student is and what it learns.

    Attributes:
        levels: timm's `out_indices` of its backbone, one for each field in `structural_teacher`.
        structural_teacher: Fields of the structural teacher, such as `pyramid/level1`.
        logical_teacher: Field of the logical teacher.
        initial: Modules that start with given weights; all others start with timm's random ones.
        neighbourhood: Side p of the window in L_high, odd.
        losses: Weight of each loss.
        training: How it is trained.
        seed: Of the random parameters and the order of images.
    """

    levels: Indices
    structural_teacher: tuple[str, ...]
    logical_teacher: str
    initial: InitialWeights | None = None
    neighbourhood: PositiveInt = 3
    losses: LossWeights = LossWeights()
    training: TrainingConfig = TrainingConfig()
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _levels_match(self) -> Self:
        if len(self.levels) != len(self.structural_teacher):
            raise ValueError(
                f"levels has {len(self.levels)} entries and structural_teacher {len(self.structural_teacher)}; "
                "give one level of the student for each field of the teacher"
            )
        if self.neighbourhood % 2 == 0:
            raise ValueError(f"neighbourhood must be odd, not {self.neighbourhood}")
        return self


class DistilledFeatures(NamedTuple):
    """What teachers or student say of N images.

    Attributes:
        levels: Levels of the structural teacher, float32, shape (N, C_l, h_l, w_l).
        logical: Field of the logical teacher, float32, shape (N, C, h, w).
    """

    levels: Sequence[torch.Tensor]
    logical: torch.Tensor


@dataclass(frozen=True)
class TeacherShapes:
    """Channels, height and width of the teachers' fields, which the student's take on.

    Attributes:
        levels: Of each field of the structural teacher.
        logical: Of the field of the logical teacher.
    """

    levels: tuple[Shape, ...]
    logical: Shape

    @classmethod
    def of(cls, features: DistilledFeatures) -> TeacherShapes:
        """Reads the shapes off what the teachers say."""
        return cls(tuple(_shape(level) for level in features.levels), _shape(features.logical))

    def document(self) -> dict[str, Any]:
        """The shapes as JSON types."""
        return {"levels": [list(shape) for shape in self.levels], "logical": list(self.logical)}

    @classmethod
    def from_document(cls, document: Any) -> TeacherShapes:
        """The shapes that `document` gave.

        Raises:
            BundleError: Something else.
        """
        try:
            channels, height, width = (int(size) for size in document["logical"])
            levels = tuple((int(c), int(h), int(w)) for c, h, w in document["levels"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the student's state has no shapes of its teachers ({error}); fit again") from error
        return cls(levels, (channels, height, width))


class StudentNetwork(nn.Module):
    """The backbone and its two branches.

    The structural branch is the backbone's levels; where the teacher has other channels or another grid, each is
    projected by a learned 1x1 convolution and resized. The logical branch brings the levels to the logical teacher's
    grid (eq. 8), concatenates them (eq. 9) and projects them to its width by a learned 1x1 convolution.
    """

    def __init__(self, backbone: Any, config: StudentConfig, shapes: TeacherShapes) -> None:
        """Adds the branches to a backbone.

        Args:
            backbone: timm's network.
            config: Of the student.
            shapes: Of the teachers' fields.
        """
        super().__init__()
        widths = [int(backbone.feature_info[level]["num_chs"]) for level in config.levels]
        # What lies deeper would be carried along in every checkpoint and never be trained.
        backbone.prune_intermediate_layers(list(config.levels), prune_norm=True, prune_head=True)
        self.backbone = backbone
        self.levels = nn.ModuleList(
            nn.Identity() if width == shape[0] else nn.Conv2d(width, shape[0], kernel_size=1)
            for width, shape in zip(widths, shapes.levels, strict=True)
        )
        self.logical = nn.Conv2d(sum(widths), shapes.logical[0], kernel_size=1)
        self.levels.requires_grad_(bool(config.losses.low or config.losses.high))
        self.logical.requires_grad_(bool(config.losses.logical))
        self._indices = list(config.levels)
        self._shapes = shapes

    def forward(self, pixels: torch.Tensor) -> DistilledFeatures:
        """Computes both branches.

        Args:
            pixels: Normalised images, shape (N, 3, H, W).

        Returns:
            Features of the shapes of the teachers'.
        """
        features = self.backbone.forward_intermediates(
            pixels, indices=self._indices, norm=False, stop_early=True, intermediates_only=True
        )
        levels = [
            resize_field(project(feature), shape[1:])
            for project, feature, shape in zip(self.levels, features, self._shapes.levels, strict=True)
        ]
        joined = torch.cat([resize_field(feature, self._shapes.logical[1:]) for feature in features], dim=1)
        return DistilledFeatures(levels, self.logical(joined))


def build_student(config: StudentConfig, shapes: TeacherShapes) -> StudentNetwork:
    """Builds the untrained student; the same configuration gives the same parameters.

    Raises:
        ConfigError: Unknown architecture or level, or a module to initialise that the network does not have.
        WeightsError: The initial weights are missing or do not fit.
    """
    _check_levels("the student", config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = build_network(config.architecture)
        if config.initial is not None:
            _initialise(backbone, config.architecture, config.initial)
        network = StudentNetwork(backbone, config, shapes)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class Student:
    """The trained student as an extractor; a layer above trains it.

    Provides `{name}/{part}` for each field `{teacher}/{part}` of the structural teacher, and `{name}/logical` for that
    of the logical teacher: float32, of the same shapes.
    """

    config_model: ClassVar[type[StudentConfig]] = StudentConfig

    def __init__(self, name: str, config: StudentConfig, device: str) -> None:
        """Prepares; it can extract once its state is restored.

        Raises:
            ConfigError: Unknown architecture or level.
        """
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.training_needs = frozenset({*config.structural_teacher, config.logical_teacher})
        self.provides = self.fields_of(name, config)
        self._device = torch.device(device)
        self._network: StudentNetwork | None = None
        self._state: State | None = None

    @classmethod
    def fields_of(cls, name: str, config: StudentConfig) -> frozenset[str]:
        """The names of the provided fields.

        Raises:
            ConfigError: Unknown architecture or level.
        """
        _check_levels(name, config)
        return frozenset({*_level_names(name, config), f"{name}/logical"})

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Computes both branches for one batch; see the class for shapes."""
        return in_parts(self._compute, perception.images, self._device)

    def _compute(self, images: np.ndarray) -> dict[str, torch.Tensor]:
        if self._network is None:
            raise ValueError(f"{self.name} was asked to extract before it was trained")
        pixels = normalised_pixels(images, self.config.mean, self.config.std, self._device)
        features = self._network(pixels.contiguous(memory_format=torch.channels_last))
        names = [*_level_names(self.name, self.config), f"{self.name}/logical"]
        return dict(zip(names, [*features.levels, features.logical], strict=True))

    def lineage(self) -> dict[str, Any]:
        """The configuration; the trained parameters are part of the bundle."""
        return self.config.model_dump(mode="json")

    def state(self) -> State:
        """The trained parameters, as they were restored."""
        if self._state is None:
            raise ValueError(f"{self.name} has no state before it was trained")
        return self._state

    def restore(self, state: State) -> None:
        """Takes over trained parameters.

        Raises:
            BundleError: They are those of another network.
        """
        # Initial weights would be overwritten, and need not be on this machine.
        config = self.config.model_copy(update={"initial": None})
        network = build_student(config, TeacherShapes.from_document(state.document))
        load_parameters(network, state.arrays)
        self._network = network.eval().requires_grad_(False).to(self._device)
        self._state = state


def load_parameters(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copies named arrays into the parameters and buffers of a network, all of them.

    Args:
        network: The network.
        arrays: Array by name.

    Raises:
        BundleError: A name or a shape is not that of the network.
    """
    try:
        network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"the stored parameters are of another student: {reason:.200}; fit again") from error


def _check_levels(name: str, config: StudentConfig) -> None:
    count = network_outline(config.architecture).feature_count
    if config.levels[-1] >= count:
        raise ConfigError(f"{name}: {config.architecture} has the levels 0..{count - 1}, not {config.levels[-1]}")


def _level_names(name: str, config: StudentConfig) -> list[str]:
    return [f"{name}/{field.partition('/')[2]}" for field in config.structural_teacher]


def _initialise(backbone: nn.Module, architecture: str, initial: InitialWeights) -> None:
    donor = build_network(architecture)
    load_into(donor, resolve(initial.source), initial.key_mapping)
    for name in initial.modules:
        try:
            backbone.get_submodule(name).load_state_dict(donor.get_submodule(name).state_dict())
        except AttributeError as error:
            known = ", ".join(child for child, _ in backbone.named_children())
            raise ConfigError(f"{architecture} has no module {name!r} to initialise; it has {known}") from error


def _shape(field: torch.Tensor) -> Shape:
    return int(field.shape[1]), int(field.shape[2]), int(field.shape[3])
