"""Twins: one picture in several files, with other metadata or in another format.

A twin in the fit would give away its held-out copy, and twins would count twice in the calibration. They are found in
two steps: by a coarse hash of the pixels, which compression hardly changes, then by the pixels themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from uniad_ray.config.calibration import CalibrationConfig
from uniad_ray.errors import FitError
from uniad_ray.scoring.calibration import Fold
from uniad_ray.scoring.fitting.perceptions import NormalImages
from uniad_ray.scoring.fitting.splits import FitSplit, split_normal_images

_HASH_SIDE: Final = 16
_HASH_DISTANCE: Final = 2.0
"""Largest root mean square difference of two hashes, in grey levels, for a comparison of the pixels."""
_BLOCK: Final = 8
"""Side of the compared blocks, pixels. JPEG keeps the mean of its blocks, whatever else it loses."""
_MOST_COLOUR: Final = (2.5, 12.0)
"""Largest difference of the colours of blocks, in levels: root mean square, and of one block."""
_MOST_GREY: Final = (1.5, 4.5)
"""The same of their grey levels. JPEG at quality 60 stays below 1 and 3; a shift by one pixel gives 3 and 8."""
_LEAST_CORRELATION: Final = 0.5
"""Least correlation of fine structure; copies have 0.8 or more. Images of a plain surface agree in everything else."""
_FINE_SIDE: Final = 5

FloatArray = npt.NDArray[np.float32]


def split_pictures(images: NormalImages, config: CalibrationConfig) -> FitSplit:
    """Split normal images like `split_normal_images`, with every picture once: its twins are in no set.

    Args:
        images: Normal images; each is decoded once, and once more for every candidate.
        config: Hold-out options.

    Raises:
        FitError: Fewer than two distinct pictures, altered copies included.
    """
    rows = images.rows
    used = first_images(images)
    pictures, files = (sum(rows[index].copy_of is None for index in indices) for indices in (used, range(len(rows))))
    if len(used) < 2 or pictures == 1 < files:
        raise FitError(f"{pictures} distinct normal images of {files}; a fit needs at least 2, better 20")
    split = split_normal_images([rows[index] for index in used], config)

    def placed(indices: Sequence[int]) -> tuple[int, ...]:
        return tuple(used[index] for index in indices)

    return FitSplit(
        split.method,
        [Fold(placed(fold.fit), placed(fold.calibrate)) for fold in split.folds],
        placed(split.final),
        [placed(indices) for indices in split.learning],
        [placed(indices) for indices in split.training],
    )


def first_images(images: NormalImages) -> list[int]:
    """Return the indices of the images without twins: the first of every picture, and its altered copies.

    Images of a single colour show no picture, and others cannot be decoded; these are twins only of files with the same
    bytes.

    Args:
        images: Normal images.
    """
    rows = images.rows
    originals = [index for index, row in enumerate(rows) if row.copy_of is None]
    hashes = {index: _hash(image) for index, image in images.read(originals) if not _is_plain(image)}
    contents: set[str] = set()
    firsts: list[int] = []
    for index in originals:
        is_new = rows[index].image_id not in contents
        contents.add(rows[index].image_id)
        if is_new and not any(_are_twins(images, first, index) for first in _near(index, firsts, hashes)):
            firsts.append(index)
    kept = {rows[index].row_key for index in firsts}
    return [index for index, row in enumerate(rows) if (row.copy_of or row.row_key) in kept]


def are_same_picture(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two images show the same picture, apart from compression.

    Args:
        first: uint8, shape (H, W, 3), RGB.
        second: The same shape.
    """
    blocks = (max(4, first.shape[0] // _BLOCK), max(4, first.shape[1] // _BLOCK))
    colours = _means(first, blocks) - _means(second, blocks)
    if not (_is_small(colours, _MOST_COLOUR) and _is_small(colours.mean(axis=2), _MOST_GREY)):
        return False
    fine, other = _fine(first), _fine(second)
    scale = float(np.sqrt((fine**2).mean() * (other**2).mean()))
    # Without any fine structure, the block means decide.
    return scale < 1e-3 or float((fine * other).mean()) >= _LEAST_CORRELATION * scale


def _is_small(difference: FloatArray, most: tuple[float, float]) -> bool:
    return float(np.sqrt((difference**2).mean())) <= most[0] and float(np.abs(difference).max()) <= most[1]


def _near(index: int, firsts: Sequence[int], hashes: dict[int, FloatArray]) -> Iterator[int]:
    """Yield the earlier images with a similar hash."""
    decoded = [first for first in firsts if first in hashes]
    if index not in hashes or not decoded:
        return
    differences = np.stack([hashes[first] for first in decoded]) - hashes[index]
    distances = np.sqrt((differences**2).mean(axis=1))
    yield from (decoded[int(place)] for place in np.flatnonzero(distances <= _HASH_DISTANCE))


def _are_twins(images: NormalImages, first: int, second: int) -> bool:
    pair = [image for _, image in images.read([first, second])]
    return len(pair) == 2 and are_same_picture(*pair)


def _is_plain(image: np.ndarray) -> bool:
    """Whether an image has a single colour."""
    return bool((image == image[:1, :1]).all())


def _hash(image: np.ndarray) -> FloatArray:
    """Grey levels of a coarse grid, float32, shape (256,)."""
    return np.asarray(_means(image, (_HASH_SIDE, _HASH_SIDE)).mean(axis=2).ravel(), dtype=np.float32)


def _means(image: np.ndarray, blocks: tuple[int, int]) -> FloatArray:
    """Means of a grid of blocks, float32, shape (rows, columns, 3)."""
    reduced = [
        Image.fromarray(image[..., channel].astype(np.float32)).resize(blocks[::-1], Image.Resampling.BOX)
        for channel in range(3)
    ]
    return np.stack([np.asarray(channel, dtype=np.float32) for channel in reduced], axis=-1)


def _fine(image: np.ndarray) -> FloatArray:
    """Grey levels without their local mean, float32, shape (H, W)."""
    grey = image.astype(np.float32).mean(axis=2)
    return np.asarray(grey - ndimage.uniform_filter(grey, _FINE_SIDE), dtype=np.float32)
