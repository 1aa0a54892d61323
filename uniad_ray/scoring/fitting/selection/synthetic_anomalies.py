"""Synthetic anomalies made from normal images, to evaluate experts without labels.

Object anomalies erase, duplicate, move, exchange or replace segmented objects. Layout and surface anomalies use no
segmentation, so experts that share the segmenter get no advantage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from scipy import ndimage

from uniad_ray.perception.segments import Segments

Family = Literal["objects", "layout", "surface"]
"""Families: segmented objects, layout of the image, and surface."""


class NormalView(NamedTuple):
    """A normal image with its segments.

    Attributes:
        image: uint8, shape (H, W, 3), RGB.
        segments: Its segments; None without a segmenter.
    """

    image: np.ndarray
    segments: Segments | None


class _SyntheticAnomaly(NamedTuple):
    family: Family
    apply: Callable[[NormalView, Sequence[NormalView], np.random.Generator], np.ndarray | None]


def make_synthetic_anomaly(
    name: str, row_key: str, view: NormalView, others: Sequence[NormalView], seed: int
) -> np.ndarray | None:
    """Make a synthetic anomaly from one image, deterministic in name, key and seed.

    Args:
        name: One of `SYNTHETIC_ANOMALIES`.
        row_key: Key of the image; seeds the random numbers.
        view: The image.
        others: Other normal images, at least one; some kinds take pixels from them.
        seed: Seed of the random numbers.

    Returns:
        uint8, the shape of the image; None if the kind does not apply, such as an object anomaly without objects.
    """
    digest = hashlib.blake2b(f"{seed}:{name}:{row_key}".encode(), digest_size=8).digest()
    synthetic = _SYNTHETIC_ANOMALIES[name].apply(view, others, np.random.default_rng(int.from_bytes(digest, "little")))
    if synthetic is None or np.array_equal(synthetic, view.image):
        return None
    return synthetic


def _masks(view: NormalView) -> np.ndarray:
    """Return the masks of the segments at the size of the image: bool, shape (n, H, W)."""
    height, width = view.image.shape[:2]
    if view.segments is None or not len(view.segments):
        return np.zeros((0, height, width), dtype=bool)
    masks = view.segments.masks()
    rows = np.arange(height) * masks.shape[1] // height
    columns = np.arange(width) * masks.shape[2] // width
    return masks[:, rows[:, None], columns]


def _without(image: np.ndarray, mask: np.ndarray, others: Sequence[NormalView]) -> np.ndarray:
    """Fill a region with background: from another image that shows it, or from the surroundings."""
    wide = ndimage.binary_dilation(mask, iterations=max(1, min(image.shape[:2]) // 64))
    for other in others:
        if not (wide & _masks(other).any(axis=0)).any():
            return _blended(image, other.image, wide)
    nearest = ndimage.distance_transform_edt(wide, return_distances=False, return_indices=True)
    around = ndimage.gaussian_filter(image[tuple(nearest)].astype(np.float32), (4.0, 4.0, 0.0))
    return _blended(image, around, wide)


def _blended(image: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend the other image in inside the mask, with a soft border."""
    share = ndimage.gaussian_filter(mask.astype(np.float32), 1.0)[..., None]
    return np.asarray(np.clip(np.rint(image * (1.0 - share) + other * share), 0, 255), dtype=np.uint8)


def _pasted(image: np.ndarray, source: np.ndarray, mask: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """Paste the masked pixels of a source, shifted, onto the image; pixels outside are dropped."""
    moved_mask = ndimage.shift(mask, shift, order=0, cval=False)
    moved = ndimage.shift(source, (*shift, 0), order=0, mode="nearest")
    return _blended(image, moved, moved_mask)


def _free_shift(mask: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """Find a shift of at least half the size of a region to a free place, or None."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    taken = masks.any(axis=0)
    for _ in range(50):
        down = int(rng.integers(-rows[0], height - rows[-1]))
        across = int(rng.integers(-columns[0], width - columns[-1]))
        is_far = abs(down) > len(rows) / 2 or abs(across) > len(columns) / 2
        if is_far and not (ndimage.shift(mask, (down, across), order=0) & taken).any():
            return down, across
    return None


def _erase(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray | None:
    masks = _masks(view)
    return _without(view.image, masks[rng.integers(len(masks))], others) if len(masks) else None


def _duplicate(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray | None:  # noqa: ARG001
    masks = _masks(view)
    if not len(masks):
        return None
    mask = masks[rng.integers(len(masks))]
    shift = _free_shift(mask, masks, rng)
    return None if shift is None else _pasted(view.image, view.image, mask, shift)


def _move(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray | None:
    masks = _masks(view)
    if not len(masks):
        return None
    mask = masks[rng.integers(len(masks))]
    shift = _free_shift(mask, masks, rng)
    return None if shift is None else _pasted(_without(view.image, mask, others), view.image, mask, shift)


def _exchange(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray | None:
    """Replace an object by another of the same image, of another class if segments have names."""
    masks = _masks(view)
    if len(masks) < 2:
        return None
    first = int(rng.integers(len(masks)))
    names = view.segments.names if view.segments is not None else ()
    unlike = [number for number in range(len(masks)) if number != first]
    unlike = [number for number in unlike if not names or names[number] != names[first]]
    if not unlike:
        return None
    second = masks[unlike[rng.integers(len(unlike))]]
    here, there = (np.argwhere(mask).mean(axis=0) for mask in (masks[first], second))
    shift = tuple(round(step) for step in here - there)
    return _pasted(_without(view.image, masks[first], others), view.image, second, (shift[0], shift[1]))


def _foreign_object(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray | None:
    """Replace an object by one of its class from another image: plausible alone, wrong in combination."""
    masks = _masks(view)
    if not len(masks) or view.segments is None or not view.segments.names:
        return None
    number = int(rng.integers(len(masks)))
    name = view.segments.names[number]
    for position in rng.permutation(len(others)):
        other = others[int(position)]
        names = other.segments.names if other.segments is not None else ()
        alike = [row for row, other_name in enumerate(names) if other_name == name]
        if alike and other.image.shape == view.image.shape:
            foreign = _masks(other)[alike[int(rng.integers(len(alike)))]]
            here, there = (np.argwhere(mask).mean(axis=0) for mask in (masks[number], foreign))
            down, across = (round(step) for step in here - there)
            return _pasted(_without(view.image, masks[number], others), other.image, foreign, (down, across))
    return None


def _cells(image: np.ndarray, rng: np.random.Generator) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Choose two different cells of a grid with two to four rows and as many columns."""
    count = int(rng.integers(2, 5))
    height, width = image.shape[0] // count, image.shape[1] // count
    first, second = rng.choice(count * count, size=2, replace=False)

    def cell(number: int) -> tuple[slice, slice]:
        row, column = divmod(int(number), count)
        return slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)

    return cell(first), cell(second)


def _copy_cell(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    first, second = _cells(view.image, rng)
    synthetic = view.image.copy()
    synthetic[first] = view.image[second]
    return synthetic


def _swap_cells(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    first, second = _cells(view.image, rng)
    synthetic = view.image.copy()
    synthetic[first], synthetic[second] = view.image[second], view.image[first]
    return synthetic


def _foreign_cell(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray:
    """Replace a cell by a different cell of another image."""
    first, second = _cells(view.image, rng)
    synthetic = view.image.copy()
    synthetic[first] = others[int(rng.integers(len(others)))].image[second]
    return synthetic


def _window(image: np.ndarray, rng: np.random.Generator, least: float, most: float) -> tuple[int, int, int, int]:
    """Top, left, height and width of a window; sides are between two fractions of those of the image."""
    height, width = (max(2, int(side * rng.uniform(least, most))) for side in image.shape[:2])
    return int(rng.integers(image.shape[0] - height + 1)), int(rng.integers(image.shape[1] - width + 1)), height, width


def _cut_paste(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Paste a small window, slightly brighter or darker, elsewhere in the image (CutPaste)."""
    image = view.image
    top, left, height, width = _window(image, rng, 0.04, 0.15)
    down, across = (
        int(rng.integers(side - length + 1)) for side, length in zip(image.shape[:2], (height, width), strict=True)
    )
    piece = image[down : down + height, across : across + width].astype(np.float32)
    synthetic = image.copy()
    synthetic[top : top + height, left : left + width] = np.clip(piece * rng.uniform(0.8, 1.2), 0, 255)
    return synthetic


def _strokes(image: np.ndarray, rng: np.random.Generator, least: float = 0.08, most: float = 0.3) -> np.ndarray:
    """Draw a wavy line with values in [0, 1]: float32, shape (H, W); its length is a fraction of the shorter side."""
    height, width = image.shape[:2]
    length = rng.uniform(least, most) * min(height, width)
    steps = np.arange(int(length) * 2) / 2
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.03, size=len(steps)))
    rows = rng.uniform(0.1, 0.9) * height + np.cumsum(np.sin(angle)) / 2
    columns = rng.uniform(0.1, 0.9) * width + np.cumsum(np.cos(angle)) / 2
    drawn = np.zeros((height, width), dtype=np.float32)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    drawn[rows[inside].astype(int), columns[inside].astype(int)] = 1.0
    thick = ndimage.gaussian_filter(drawn, rng.uniform(0.004, 0.01) * min(height, width))
    return np.asarray(thick / max(float(thick.max()), 1e-6), dtype=np.float32)


def _toned(image: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend the image towards a darker or brighter version of one of its colours, weighted by `shares`."""
    colour = image[int(rng.integers(image.shape[0])), int(rng.integers(image.shape[1]))].astype(np.float32)
    tone = np.clip(colour * rng.choice([rng.uniform(0.3, 0.8), rng.uniform(1.25, 2.0)]), 0, 255)
    share = (shares * rng.uniform(0.3, 0.9))[..., None]
    return np.asarray(np.rint(image * (1.0 - share) + tone * share), dtype=np.uint8)


def _scratch(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    return _toned(view.image, _strokes(view.image, rng), rng)


def _blob(image: np.ndarray, rng: np.random.Generator, least: float = 0.05, most: float = 0.2) -> np.ndarray:
    """Draw a soft irregular blob with values in [0, 1]: float32, shape (H, W); sides are fractions of the image."""
    top, left, height, width = _window(image, rng, least, most)
    rows = (np.arange(image.shape[0]) - top - height / 2) / (height / 2)
    columns = (np.arange(image.shape[1]) - left - width / 2) / (width / 2)
    waves = ndimage.gaussian_filter(rng.standard_normal(image.shape[:2]), min(height, width) / 4)
    distance = np.hypot(rows[:, None], columns) + 0.3 * waves / max(float(waves.std()), 1e-6)
    return np.asarray(np.clip((1.0 - distance) * 3.0, 0.0, 1.0), dtype=np.float32)


def _stain(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    return _toned(view.image, _blob(view.image, rng), rng)


def _fleck(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Stain 0.1 to 0.4 % of the image."""
    return _toned(view.image, _blob(view.image, rng, *_SMALL_SIDES), rng)


def _nick(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Scratch a few pixels."""
    return _toned(view.image, _strokes(view.image, rng, *_SMALL_SIDES), rng)


def _warp(view: NormalView, others: Sequence[NormalView], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Displace the surface within a blob, like a dent."""
    image = view.image
    shares = _blob(image, rng)
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.06) * min(image.shape[:2])
    rows, columns = np.indices(image.shape[:2])
    places = (rows + shares * reach * np.sin(angle), columns + shares * reach * np.cos(angle))
    channels = [ndimage.map_coordinates(image[..., channel], places, order=1, mode="nearest") for channel in range(3)]
    return np.asarray(np.stack(channels, axis=-1), dtype=np.uint8)


_SMALL_SIDES: Final = (0.036, 0.072)
"""Sides of small surface anomalies, as fractions of the image's; an ellipse of these sides takes 0.1 to 0.4 %."""

_SYNTHETIC_ANOMALIES: Final[Mapping[str, _SyntheticAnomaly]] = {
    "erase": _SyntheticAnomaly("objects", _erase),
    "duplicate": _SyntheticAnomaly("objects", _duplicate),
    "move": _SyntheticAnomaly("objects", _move),
    "exchange": _SyntheticAnomaly("objects", _exchange),
    "foreign_object": _SyntheticAnomaly("objects", _foreign_object),
    "copy_cell": _SyntheticAnomaly("layout", _copy_cell),
    "swap_cells": _SyntheticAnomaly("layout", _swap_cells),
    "foreign_cell": _SyntheticAnomaly("layout", _foreign_cell),
    "cut_paste": _SyntheticAnomaly("surface", _cut_paste),
    "scratch": _SyntheticAnomaly("surface", _scratch),
    "stain": _SyntheticAnomaly("surface", _stain),
    "warp": _SyntheticAnomaly("surface", _warp),
    "fleck": _SyntheticAnomaly("surface", _fleck),
    "nick": _SyntheticAnomaly("surface", _nick),
}

SYNTHETIC_ANOMALIES: Final[Sequence[str]] = tuple(_SYNTHETIC_ANOMALIES)
"""Names of the kinds of synthetic anomalies."""


def family_of(name: str) -> Family:
    """Return the family of a kind of synthetic anomaly."""
    return _SYNTHETIC_ANOMALIES[name].family
