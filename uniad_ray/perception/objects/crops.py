"""Crops of an image's segments, black outside of the segment (TMUAD, algorithm 1: the mask times the image)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.segments import Segments


def object_crops(
    image: np.ndarray, segments: Segments, *, size: int, padding: float, batch: int
) -> Iterator[np.ndarray]:
    """Crops a square centred on the box of each segment and resizes it.

    Args:
        image: uint8, shape (H, W, 3), RGB.
        segments: n segments.
        size: Side of the crops, pixels.
        padding: Black margin on every side, as a fraction of the longer side of the box.
        batch: Maximum number of crops per array.

    Yields:
        The crops in the order of the segments: uint8, shape (m, size, size, 3), m at most `batch`.
    """
    for start in range(0, len(segments), batch):
        rows = np.arange(start, min(start + batch, len(segments)))
        part = segments.select(rows)
        yield np.stack([_crop(image, mask, size, padding) for mask in part.masks()])


def square_crop(shown: np.ndarray, *, size: int, padding: float) -> np.ndarray:
    """Centres a cut-out on a black square and resizes it.

    Args:
        shown: The box of an object, black outside of the object: uint8, shape (h, w, 3), RGB.
        size: Side of the crop, pixels.
        padding: Black margin on every side, as a fraction of the longer side of the box.

    Returns:
        uint8, shape (size, size, 3).
    """
    height, width = shown.shape[:2]
    margin = round(padding * max(height, width))
    side = max(height, width) + 2 * margin
    square = np.zeros((side, side, 3), dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = shown
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))


def _crop(image: np.ndarray, mask: np.ndarray, size: int, padding: float) -> np.ndarray:
    inside = _at_size(mask, image.shape[0], image.shape[1])
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return square_crop(image[box] * inside[box][..., None], size=size, padding=padding)


def _at_size(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask at the size of the image; a mask that is not empty keeps at least one pixel."""
    found = evenly_spaced(mask, height, width)
    if not found.any():
        row, column = np.argwhere(mask)[0]
        found[row * height // mask.shape[0], column * width // mask.shape[1]] = True
    return found
