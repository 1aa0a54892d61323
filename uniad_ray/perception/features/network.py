"""timm networks: construction, input normalisation, and bit-identical inference for any batch size."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field, NonNegativeInt, field_validator
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError
from uniad_ray.perception.timm_library import VisionTransformer, timm, without_compiler

Precision = Literal["float32", "bfloat16", "float16"]
ChannelTriple = tuple[float, float, float]


def _ascending(indices: tuple[int, ...]) -> tuple[int, ...]:
    if any(a >= b for a, b in itertools.pairwise(indices)):
        raise ValueError(f"the indices must ascend without repeats, not {indices}")
    return indices


Indices = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(_ascending)]

CNN_STRIDE: Final = 32
"""Sides of the input of a CNN are multiples of this, so that every level covers the whole image."""

# Larger parts are slower on a CPU because their activations no longer fit the cache.
_CPU_PART: Final = 4
TORCH_DTYPE: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class NetworkConfig(StrictModel):
    """Options of every timm network.

    Attributes:
        architecture: timm's name of the network. A tag after a dot is only a label; it never loads weights.
        mean: Channel means of the network's input, RGB, for values in 0..1.
        std: Channel standard deviations of the network's input, RGB, for values in 0..1.
    """

    architecture: str
    mean: ChannelTriple = _IMAGENET_MEAN
    std: ChannelTriple = _IMAGENET_STD

    @field_validator("std")
    @classmethod
    def _positive(cls, std: ChannelTriple) -> ChannelTriple:
        if min(std) <= 0:
            raise ValueError(f"std must be positive, not {std}")
        return std


@dataclass(frozen=True)
class Outline:
    """Properties of an architecture that planning needs.

    Attributes:
        feature_count: Levels of a CNN, or blocks of a vision transformer.
        patch_size: Height and width of a patch, pixels; None for a CNN.
        has_class_token: Whether the network has a token for the whole image.
    """

    feature_count: int
    patch_size: tuple[int, int] | None
    has_class_token: bool


@lru_cache(maxsize=64)
def network_outline(architecture: str) -> Outline:
    """The outline of an architecture; loads no weights.

    Raises:
        ConfigError: timm does not have the architecture, or returns no intermediate features of it.
    """
    with without_compiler(), torch.device("meta"):
        network = build_network(architecture)
    return Outline(
        feature_count=len(network.feature_info),
        patch_size=tuple(network.patch_embed.patch_size) if isinstance(network, VisionTransformer) else None,
        has_class_token=bool(getattr(network, "has_class_token", False)),
    )


def build_network(architecture: str) -> Any:
    """Builds the network without its classifier, with timm's initial parameters.

    Raises:
        ConfigError: timm does not have the architecture, or returns no intermediate features of it.
    """
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
        raise ConfigError(f"timm returns no intermediate features of {architecture}; choose another architecture")
    return network


def network_size(
    image_size: tuple[int, int],
    input_size: int | None,
    multiples: tuple[int, int] = (CNN_STRIDE, CNN_STRIDE),
    *,
    enlarge: bool = False,
) -> tuple[int, int]:
    """Height and width of a network's input: the aspect ratio of the image, at about the area of a square.

    Args:
        image_size: Height and width of the image, pixels.
        input_size: Side of the square, pixels; None keeps the size of the image.
        multiples: The height is rounded to a multiple of the first, the width to one of the second; at least once it.
        enlarge: Whether an image smaller than the square is enlarged; otherwise only the rounding can enlarge it.
    """
    factor = 1.0 if input_size is None else input_size / math.sqrt(image_size[0] * image_size[1])
    if not enlarge:
        factor = min(1.0, factor)
    height, width = (
        multiple * max(1, round(side * factor / multiple)) for side, multiple in zip(image_size, multiples, strict=True)
    )
    return height, width


def normalised_pixels(
    images: np.ndarray,
    mean: ChannelTriple,
    std: ChannelTriple,
    device: torch.device,
    size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Scales images to 0..1, resizes them (bilinear, antialiased) and normalises: float32, shape (N, 3, H, W)."""
    # torch.from_numpy warns about read-only arrays, such as those in shared memory.
    array = images if images.flags.writeable else images.copy()
    pixels = torch.from_numpy(array).to(device).permute(0, 3, 1, 2).to(torch.float32)
    if size is not None and tuple(pixels.shape[-2:]) != size:
        pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, 3, 1, 1)
    return pixels * scale + shift


def in_parts(
    compute: Callable[[np.ndarray], dict[str, torch.Tensor]], images: np.ndarray, device: torch.device
) -> dict[str, torch.Tensor]:
    """Runs a network over a batch in parts; an image's fields do not depend on its batch, down to the last bit.

    Args:
        compute: Computes fields from uint8 images, shape (n, H, W, 3).
        images: The batch: uint8, shape (N, H, W, 3), N at least 1.
        device: Device of the network.

    Returns:
        The fields by name: float32, contiguous, usable in autograd.
    """
    size = _CPU_PART if device.type == "cpu" else len(images)
    parts = []
    with torch.inference_mode(), _SameConvolution():
        for start in range(0, len(images), size):
            part = compute(images[start : start + size])
            parts.append({name: tensor.to(torch.float32).contiguous() for name, tensor in part.items()})
    # Concatenation outside of inference mode gives ordinary tensors.
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _has_one_dnn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


class _SameConvolution(TorchFunctionMode):
    """Makes torch use oneDNN for every float32 convolution on the CPU.

    On one thread, torch uses another kernel for fewer than 16 images. The last bits of an image's features would then
    depend on the batch size and on the number of threads.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.conv2d and len(args) == 7 and not kwargs:
            pixels, weight, bias, stride, padding, dilation, groups = args
            if pixels.device.type == "cpu" and isinstance(padding, tuple) and _has_one_dnn():
                return torch.mkldnn_convolution(pixels, weight, bias, padding, stride, dilation, groups)
        return func(*args, **(kwargs or {}))


def check_precision(name: str, precision: Precision, device: torch.device) -> None:
    """Rejects precisions below float32 on devices other than CUDA.

    Raises:
        ConfigError: The device does not support the precision.
    """
    if precision != "float32" and device.type != "cuda":
        raise ConfigError(f"{name}: precision {precision} needs a cuda device, not {device}; use float32")
