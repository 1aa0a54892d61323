"""Connected regions of a mask, and splitting of regions at narrow necks."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage

from uniad_ray.perception.segments import MOST_SEGMENTS

_EIGHT_NEIGHBOURS: Final = np.ones((3, 3), dtype=bool)
_LARGEST_SPECK: Final = 0.001
"""Largest hole to fill, as a fraction of the image: a highlight, not the inside of a ring."""
_FEWEST_PIXELS: Final = 24
"""Minimum area of a region, pixels: smaller ones are grain, they have no shape."""
_MOST_FRAME: Final = 1.0
"""A region of area A that runs along the frame for more than this times the root of A is ground that was cut off."""


def find_regions(mask: np.ndarray, smallest: float, largest: float, most: int = MOST_SEGMENTS) -> np.ndarray:
    """Labels the connected regions of a mask that may be parts; specks inside of a region belong to it.

    A region that covers a corner of the image, or lies along its frame, is no part: it is ground, or what a vignette or
    the padding of a network makes of it.

    Args:
        mask: bool, shape (h, w).
        smallest: Minimum area of a region, as a fraction of the image.
        largest: Maximum area of a region, as a fraction of the image.
        most: Maximum number of regions; the largest are kept.

    Returns:
        uint16, shape (h, w): 1..n inside of the regions, 0 elsewhere.
    """
    regions, areas, kept = _possible_parts(mask, smallest, largest, most)
    numbers = np.zeros(len(areas), dtype=np.uint16)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return np.asarray(numbers[regions])


def region_areas(mask: np.ndarray, smallest: float, largest: float, most: int = MOST_SEGMENTS) -> np.ndarray:
    """The areas of the regions of `find_regions`, without their label map: int64, shape (n,), pixels."""
    _, areas, kept = _possible_parts(mask, smallest, largest, most)
    return np.asarray(areas[kept])


def remove_lines(mask: np.ndarray) -> np.ndarray:
    """Removes lines of one pixel: the morphological opening with a square of 2 x 2, ten times as fast as SciPy's.

    Args:
        mask: bool, shape (h, w).

    Returns:
        bool, shape (h, w): the pixels that belong to a square of 2 x 2 pixels of the mask.
    """
    corners = mask[:-1] & mask[1:]
    corners = corners[:, :-1] & corners[:, 1:]
    solid = np.zeros_like(mask)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            solid[rows, columns] |= corners
    return solid


def split_regions(regions: np.ndarray, neck: float, smallest: float) -> np.ndarray:
    """Cuts regions at narrow necks between touching parts (a watershed of the distance to the border).

    Args:
        regions: uint16, shape (h, w), from `find_regions`.
        neck: A region is cut where it is narrower than this fraction of its greatest width, in 0..1; 0 cuts nothing.
        smallest: A region stays whole if a cut would leave a part smaller than this fraction of the image.

    Returns:
        The parts, uint16, shape (h, w), numbered from 1 in the order of the regions; only the first `MOST_SEGMENTS`
        parts are kept.
    """
    if not neck:
        return regions
    parts = np.zeros(regions.shape, dtype=np.int64)
    count = 0
    for number, window in enumerate(ndimage.find_objects(regions), start=1):
        region = np.pad(regions[window] == number, 1)
        cut = _cut(region, neck, smallest * regions.size)[1:-1, 1:-1]
        inside = parts[window]
        inside[cut > 0] = cut[cut > 0] + count
        count += int(cut.max())
    return np.where(parts <= MOST_SEGMENTS, parts, 0).astype(np.uint16)


def region_overlaps(regions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pairwise intersection over union of the regions of two label maps of one image.

    Args:
        regions: int, shape (h, w): 1..n inside of the regions, 0 elsewhere.
        others: The same with 1..m.

    Returns:
        float32, shape (n, m), in 0..1; 0 for a region without pixels.
    """
    shape = (int(regions.max()) + 1, int(others.max()) + 1)
    joint = np.bincount(regions.ravel() * np.int64(shape[1]) + others.ravel(), minlength=shape[0] * shape[1])
    shared = joint.reshape(shape)
    union = shared.sum(axis=1)[1:, None] + shared.sum(axis=0)[None, 1:] - shared[1:, 1:]
    return np.asarray(shared[1:, 1:] / np.maximum(union, 1), dtype=np.float32)


def _possible_parts(
    mask: np.ndarray, smallest: float, largest: float, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All connected regions, their areas, and the numbers of those that may be parts, ascending."""
    solid = _without_specks(remove_lines(mask))
    regions, count = ndimage.label(solid, structure=_EIGHT_NEIGHBOURS)
    areas = np.bincount(regions.ravel(), minlength=count + 1)
    shares = areas / mask.size
    fitting = (areas >= _FEWEST_PIXELS) & (shares >= smallest) & (shares <= largest) & ~_along_frame(regions, areas)
    fitting[0] = False
    rows = np.flatnonzero(fitting)
    return regions, areas, np.sort(rows[np.argsort(-areas[rows], kind="stable")[:most]])


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """The mask with its small holes filled."""
    holes, count = ndimage.label(~mask)
    small = np.bincount(holes.ravel(), minlength=count + 1) < _LARGEST_SPECK * mask.size
    small[0] = False
    return np.asarray(mask | small[holes])


def _along_frame(regions: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Which regions cover a corner or lie along the frame: bool by number of the region."""
    frame = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    along = np.bincount(frame, minlength=len(areas)) > _MOST_FRAME * np.sqrt(areas)
    along[regions[[0, 0, -1, -1], [0, -1, 0, -1]]] = True
    return np.asarray(along)


def _cut(region: np.ndarray, neck: float, smallest: float) -> np.ndarray:
    depth = ndimage.distance_transform_edt(region)
    cores, count = ndimage.label(depth > neck * depth.max(), structure=_EIGHT_NEIGHBOURS)
    if count < 2:
        return region.astype(np.int64)
    nearest = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
    parts = np.where(region, cores[tuple(nearest)], 0)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return parts if sizes.min() >= smallest else region.astype(np.int64)
