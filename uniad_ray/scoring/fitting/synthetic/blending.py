"""Put pixels of one image into another without a seam."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage

_MOST_BORDER: Final = 300
"""Number of pixels of a border that are compared; more change nothing that one can see."""
_GRID: Final = 4
"""Distance of the places where the correction is computed, pixels; it is smooth in between."""
_OUTLIER: Final = 25.0
"""Least difference from the median difference at the border, in grey levels, that is no matter of light."""


def bounds(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Rows and columns of a mask with a margin, within the image; the mask is not empty."""
    found = []
    for axis in (1, 0):
        places = np.flatnonzero(mask.any(axis=axis))
        found.append(slice(max(int(places[0]) - margin, 0), int(places[-1]) + 1 + margin))
    return found[0], found[1]


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask with all pixels at most so far from it: bool, the same shape."""
    result = np.zeros_like(mask)
    if mask.any():
        box = bounds(mask, pixels)
        result[box] = ndimage.binary_dilation(mask[box], iterations=pixels) if pixels else mask[box]
    return result


def border(mask: np.ndarray) -> np.ndarray:
    """Evenly chosen pixels around a mask, at most two pixels away: int, shape (n, 2), rows and columns."""
    places = np.argwhere(grown(mask, 2) & ~mask)
    return np.asarray(places[np.linspace(0, len(places) - 1, min(len(places), _MOST_BORDER)).astype(int)])


def shifted(array: np.ndarray, step: tuple[int, int]) -> np.ndarray:
    """The array moved down and right by whole pixels; zeros where nothing was."""
    result = np.zeros_like(array)
    to, source = [], []
    for length, by in zip(array.shape, step, strict=False):
        to.append(slice(max(0, by), min(length, length + by)))
        source.append(slice(max(0, -by), min(length, length - by)))
    result[tuple(to)] = array[tuple(source)]
    return result


def mismatch(here: np.ndarray, there: np.ndarray) -> float:
    """How badly two borders fit, in grey levels: a common difference, which blending removes, counts little.

    Args:
        here: Colours, shape (n, 3).
        there: The same shape.
    """
    difference = np.asarray(here, dtype=np.float32) - there
    return float(np.abs(difference - 0.7 * np.median(difference, axis=0)).mean())


def blend(target: np.ndarray, source: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Put the masked pixels of a source into the target, in the light of their new surroundings.

    The difference of the two images at the border of the mask is interpolated inside and added, with weights that
    fall with the third power of the distance; compare mean-value cloning (Farbman et al., SIGGRAPH 2009).

    Args:
        target: uint8, shape (H, W, 3).
        source: The same shape.
        mask: bool, shape (H, W), not empty.

    Returns:
        uint8, shape (H, W, 3); None if the mask has no border in the image.
    """
    around = border(mask)
    if not len(around):
        return None
    difference = target[around[:, 0], around[:, 1]].astype(np.float32) - source[around[:, 0], around[:, 1]]
    middle = np.median(difference, axis=0)
    far = np.abs(difference - middle).max(axis=1)
    # The border may touch something else than ground, which says nothing about the light.
    difference[far > max(_OUTLIER, 3.0 * float(np.median(far)))] = middle
    box = bounds(mask, _GRID)
    rows, columns = (
        np.arange(side.start, min(side.stop, size) + _GRID, _GRID) for side, size in zip(box, mask.shape, strict=True)
    )
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    weights = (((places - around) ** 2).sum(axis=2, dtype=np.float32) + 1.0) ** -1.5
    correction = (weights @ difference / weights.sum(axis=1, keepdims=True)).reshape(len(rows), len(columns), 3)
    inside = np.nonzero(mask)
    on_grid = [(inside[axis] - box[axis].start) / _GRID for axis in range(2)]
    light = np.stack(
        [ndimage.map_coordinates(correction[..., channel], on_grid, order=1, mode="nearest") for channel in range(3)],
        axis=-1,
    )
    soft = ndimage.gaussian_filter(mask[box].astype(np.float32), 0.7)
    share = np.clip(2.0 * soft[inside[0] - box[0].start, inside[1] - box[1].start] - 0.6, 0.3, 1.0)[:, None]
    result = target.copy()
    blended = share * np.clip(source[inside] + light, 0.0, 255.0) + (1.0 - share) * target[inside]
    result[inside] = np.rint(blended).astype(np.uint8)
    return result
