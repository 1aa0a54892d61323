"""Large images in overlapping tiles: a CNN gives the same levels as for the whole image, in memory of one tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch

from uniad_ray.errors import ConfigError
from uniad_ray.perception.features.network import build_network
from uniad_ray.perception.timm_library import without_compiler

_PROBE: Final = 128
"""Side of the image that `reach` sends through an architecture: more than one cell of the deepest level."""

Window = tuple[slice, slice]
"""Rows and columns of pixels."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of an image, in pixels.

    Attributes:
        seen: What the network sees.
        kept: The part of it whose cells are kept: those that see nothing beyond the tile. The kept parts of all tiles
            cover the image once.
    """

    seen: Window
    kept: Window


def tiles(size: tuple[int, int], side: int, margin: int, stride: int) -> Iterator[Tile]:
    """Cuts an image into overlapping tiles, row by row.

    Args:
        size: Height and width of the image, multiples of the stride, pixels.
        side: Longest side of a tile, pixels; more than two margins and a stride.
        margin: Overlap of a tile and its neighbour's kept part, a multiple of the stride, pixels.
        stride: Stride of the deepest level, so that the cells of all tiles lie on one grid, pixels.
    """
    step = (side - 2 * margin) // stride * stride

    def spans(length: int) -> Iterator[tuple[slice, slice]]:
        for start in range(0, length, step):
            stop = min(start + step, length)
            yield slice(max(0, start - margin), min(stop + margin, length)), slice(start, stop)

    for seen_rows, kept_rows in spans(size[0]):
        for seen_columns, kept_columns in spans(size[1]):
            yield Tile((seen_rows, seen_columns), (kept_rows, kept_columns))


def in_tiles(
    compute: Callable[[Window], Mapping[str, torch.Tensor]], size: tuple[int, int], side: int, margin: int, stride: int
) -> dict[str, torch.Tensor]:
    """Computes the levels of large images tile by tile, and joins them without seams.

    Args:
        compute: Computes the levels of a window of the images: tensors of shape (N, C, h, w) by name.
        size: Height and width of the images, pixels.
        side: As in `tiles`.
        margin: As in `tiles`; at least the reach of the deepest level.
        stride: As in `tiles`.

    Returns:
        The levels of the whole images, float32.
    """
    joined: dict[str, torch.Tensor] = {}
    for tile in tiles(size, side, margin, stride):
        height = tile.seen[0].stop - tile.seen[0].start
        for name, part in compute(tile.seen).items():
            cell = height // int(part.shape[-2])
            if name not in joined:
                shape = (*part.shape[:2], size[0] // cell, size[1] // cell)
                joined[name] = torch.empty(shape, dtype=torch.float32, device=part.device)
            place = [slice(kept.start // cell, kept.stop // cell) for kept in tile.kept]
            inner = [
                slice((kept.start - seen.start) // cell, (kept.stop - seen.start) // cell)
                for kept, seen in zip(tile.kept, tile.seen, strict=True)
            ]
            joined[name][..., place[0], place[1]] = part[..., inner[0], inner[1]]
    return joined


@lru_cache(maxsize=16)
def reach(architecture: str, levels: tuple[int, ...]) -> tuple[int, int]:
    """How far the cells of the levels of a CNN see beyond their own pixels, and the stride of the deepest level.

    Args:
        architecture: timm's name of the network.
        levels: The levels, ascending.

    Returns:
        Pixels on each side, as a multiple of the stride: an upper bound, the sum over all convolutions and poolings.
        And the stride.

    Raises:
        ConfigError: A cell sees the whole image, for instance by squeeze-and-excitation.
    """
    pixels = 0

    def add(module: Any, inputs: tuple[torch.Tensor, ...], _: Any) -> None:
        nonlocal pixels
        height = int(inputs[0].shape[-2]) if inputs[0].ndim == 4 else 1
        if height == 1:
            raise ConfigError(f"{architecture} pools over the whole image and cannot be tiled; omit tile")
        kernel, dilation = (_first(getattr(module, name, 1)) for name in ("kernel_size", "dilation"))
        pixels += (kernel // 2) * dilation * (_PROBE // height)

    with without_compiler(), torch.device("meta"), torch.inference_mode():
        network = build_network(architecture).eval()
        for module in network.modules():
            if hasattr(module, "kernel_size"):
                module.register_forward_hook(add)
        found = network.forward_intermediates(
            torch.zeros(1, 3, _PROBE, _PROBE), indices=list(levels), stop_early=True, intermediates_only=True
        )
    stride = _PROBE // int(found[-1].shape[-2])
    return -(-pixels // stride) * stride, stride


def _first(sides: int | tuple[int, ...]) -> int:
    return sides if isinstance(sides, int) else sides[0]
