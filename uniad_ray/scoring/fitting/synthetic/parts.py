"""The parts of a normal image that can be taken out of it, and the ground that each lies on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from scipy import ndimage

from uniad_ray.perception.segments import Segments
from uniad_ray.scoring.fitting.synthetic.blending import bounds, grown

Ground = np.ndarray | None
"""Mean colour of a ground that is a segment, shape (3,); None for the pixels of no segment."""

SMALLEST_PART: Final = 0.0003
_LARGEST: Final = 0.25
"""Areas of a part that can be taken out, as fractions of the image."""
_ON_ONE_GROUND: Final = 0.6
"""Least fraction of the surroundings of a part that belongs to one ground."""
_SAME_COLOUR: Final = 16.0
"""Largest difference of two grounds in any channel, grey levels. Compartments have names by what lies in them."""


class Parts:
    """The parts of a normal image.

    Attributes:
        image: uint8, shape (H, W, 3), RGB.
        owner: int16, shape (H, W): number of the smallest segment at each pixel; -1 for none.
        names: Name of each segment; empty names if the segmenter gives none.
        areas: Visible area of each segment, as a fraction of the image.
        movable: Numbers of the segments that are parts on a ground.
        margin: Width of the ground that is taken along with a part, pixels.
    """

    def __init__(self, image: np.ndarray, segments: Segments | None) -> None:
        """Find the ground of every part."""
        self.image = image
        self.owner = _owners(segments, image.shape[:2])
        count = 0 if segments is None else len(segments)
        self.names: Sequence[str] = segments.names if segments is not None and segments.names else [""] * count
        self.margin = max(3, round(min(image.shape[:2]) / 45))
        pixels, self._colours = _sizes_and_colours(self.owner, image, count)
        self.areas = pixels / self.owner.size
        self._boxes = ndimage.find_objects(self.owner.astype(np.int32) + 1, max_label=count) if count else []
        self._grounds: dict[int, Ground] = {}
        for number in range(count):
            self._find_ground(number)
        self.movable = tuple(self._grounds)

    def _find_ground(self, number: int) -> None:
        if not SMALLEST_PART < self.areas[number] < _LARGEST:
            return
        mask = self.filled(number)
        if mask[[0, -1]].any() or mask[:, [0, -1]].any():
            return
        box = bounds(mask, self.margin + 2)
        ring = grown(mask[box], self.margin + 1) & ~grown(mask[box], max(1, self.margin - 1))
        around, pixels = np.unique(self.owner[box][ring], return_counts=True)
        if len(around) and pixels.max() >= _ON_ONE_GROUND * pixels.sum():
            ground = int(around[pixels.argmax()])
            self._grounds[number] = None if ground < 0 else self._colours[ground]

    def ground(self, number: int) -> Ground:
        """The ground of a part; that of pixels in no segment for a segment that cannot be moved."""
        return self._grounds.get(number)

    def filled(self, number: int) -> np.ndarray:
        """Mask of a segment with all that it encloses: bool, shape (H, W)."""
        box = self._boxes[number]
        mask = np.zeros(self.owner.shape, dtype=bool)
        if box is not None:
            mask[box] = ndimage.binary_fill_holes(self.owner[box] == number)
        return mask

    def shows(self, ground: Ground, places: np.ndarray) -> np.ndarray:
        """Whether this ground is visible: bool, shape (n,).

        Args:
            ground: The ground.
            places: int, shape (n, 2), rows and columns.
        """
        return np.asarray(self._is_ground(ground)[self.owner[places[:, 0], places[:, 1]]])

    def taken(self, ground: Ground, without: Collection[int] = ()) -> np.ndarray:
        """Where something else than this ground is visible, apart from some parts: bool, shape (H, W)."""
        is_free = self._is_ground(ground)
        is_free[list(without)] = True
        return np.asarray(~is_free[self.owner])

    def _is_ground(self, ground: Ground) -> np.ndarray:
        """Whether each segment, and last the pixels in none, looks like a ground: bool, shape (segments + 1,)."""
        found = np.zeros(len(self.areas) + 1, dtype=bool)
        if ground is None:
            found[-1] = True
        elif len(self.areas):
            found[:-1] = np.abs(self._colours - ground).max(axis=1) < _SAME_COLOUR
        return found

    def cut(self, number: int, without: Collection[int] = ()) -> np.ndarray:
        """Mask of a part with a margin of its ground: bool, shape (H, W).

        Args:
            number: The part.
            without: Parts that are taken out as well, and so may be in the margin.
        """
        own = self.filled(number)
        # Pixels between a part and its ground are often in no segment.
        edge = grown(own, self.margin - 1) & (self.owner < 0)
        other = self.taken(self.ground(number), {number, *without}) & ~own & ~edge
        return np.asarray(grown(own, self.margin) & ~other)

    def centre(self, number: int) -> np.ndarray:
        """Mean row and column of a part."""
        return np.asarray(np.argwhere(self.filled(number)).mean(axis=0))


def same_ground(one: Ground, other: Ground) -> bool:
    """Whether two grounds look the same."""
    if one is None or other is None:
        return one is other
    return bool(np.abs(one - other).max() < _SAME_COLOUR)


def _owners(segments: Segments | None, size: tuple[int, int]) -> np.ndarray:
    """Number of the smallest segment at each pixel of the image."""
    if segments is None or not len(segments):
        return np.full(size, -1, dtype=np.int16)
    masks = segments.masks()
    owner = np.full(masks.shape[1:], -1, dtype=np.int16)
    for number, mask in enumerate(masks):  # the largest first
        owner[mask] = number
    rows, columns = (np.arange(size[axis]) * owner.shape[axis] // size[axis] for axis in range(2))
    return np.ascontiguousarray(owner[rows[:, None], columns])


def _sizes_and_colours(owner: np.ndarray, image: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Visible pixels and mean colour of each segment: shapes (count,) and (count, 3)."""
    if not count:
        return np.zeros(0), np.zeros((0, 3))
    labels = owner.ravel().astype(np.intp) + 1
    pixels = np.bincount(labels, minlength=count + 1)
    sums = [np.bincount(labels, image[..., channel].ravel(), minlength=count + 1) for channel in range(3)]
    return pixels[1:], (np.stack(sums, axis=1) / np.maximum(pixels[:, None], 1))[1:]
