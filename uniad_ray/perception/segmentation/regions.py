"""Connected pieces of a mask, and splitting of pieces at narrow necks."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage

MOST_REGIONS: Final = 32
"""Maximum number of pieces per image; the largest are kept."""

_EIGHT_NEIGHBOURS: Final = np.ones((3, 3), dtype=bool)
# Opening with this element removes lines of one pixel.
_TWO_BY_TWO: Final = np.ones((2, 2), dtype=bool)


def find_regions(mask: np.ndarray, smallest: float, largest: float) -> np.ndarray:
    """Labels the connected pieces of a mask; holes belong to the surrounding piece.

    Args:
        mask: bool, shape (h, w).
        smallest: Minimum area of a piece, as a fraction of the image.
        largest: Maximum area of a piece, as a fraction of the image.

    Returns:
        uint8, shape (h, w): 1..n inside of the pieces, 0 elsewhere.
    """
    solid = ndimage.binary_fill_holes(ndimage.binary_opening(mask, structure=_TWO_BY_TWO))
    pieces, count = ndimage.label(solid, structure=_EIGHT_NEIGHBOURS)
    areas = np.bincount(pieces.ravel(), minlength=count + 1) / mask.size
    areas[0] = 0.0
    fitting = np.flatnonzero((areas >= smallest) & (areas <= largest))
    kept = np.sort(fitting[np.argsort(-areas[fitting], kind="stable")[:MOST_REGIONS]])
    numbers = np.zeros(count + 1, dtype=np.uint8)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return np.asarray(numbers[pieces])


def split_regions(regions: np.ndarray, neck: float, smallest: float) -> np.ndarray:
    """Cuts pieces at narrow necks between touching parts (a watershed of the distance to the border).

    Args:
        regions: uint8, shape (h, w), from `find_regions`.
        neck: A piece is cut where it is narrower than this fraction of its greatest width, in 0..1; 0 cuts nothing.
        smallest: A piece stays whole if a cut would leave a part smaller than this fraction of the image.

    Returns:
        The parts, uint8, shape (h, w), numbered from 1 in the order of the pieces; only the first `MOST_REGIONS` parts
        are kept.
    """
    if not neck:
        return regions
    parts = np.zeros(regions.shape, dtype=np.int64)
    count = 0
    for number, window in enumerate(ndimage.find_objects(regions), start=1):
        piece = np.pad(regions[window] == number, 1)
        cut = _cut(piece, neck, smallest * regions.size)[1:-1, 1:-1]
        inside = parts[window]
        inside[cut > 0] = cut[cut > 0] + count
        count += int(cut.max())
    return np.where(parts <= MOST_REGIONS, parts, 0).astype(np.uint8)


def _cut(piece: np.ndarray, neck: float, smallest: float) -> np.ndarray:
    depth = ndimage.distance_transform_edt(piece)
    cores, count = ndimage.label(depth > neck * depth.max(), structure=_EIGHT_NEIGHBOURS)
    if count < 2:
        return piece.astype(np.int64)
    nearest = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
    parts = np.where(piece, cores[tuple(nearest)], 0)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return parts if sizes.min() >= smallest else piece.astype(np.int64)
