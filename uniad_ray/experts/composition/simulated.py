"""Simulated logical anomalies on label maps: parts taken away, added, moved, swapped, turned or exchanged.

A part is cut out of all label maps of an image at once, so an altered image has no seam: every pixel keeps labels that
some normal image has. SALAD and CSAD train their networks on such maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from scipy import ndimage

from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.segments import Segments

_LARGEST_PART: Final = 0.35
"""Fraction of the image above which a segment is no part."""
_MOST_PARTS: Final = 40
_EDGE: Final = 2
"""Pixels of its edge that belong to a part: shadow and blur."""
_TRIES: Final = 40
_FREE: Final = 0.05
"""Fraction of a part that may cover others at its new place."""
_SUPPORT: Final = 4.0
"""A part so many times larger is no obstacle: the compartment or the plate that parts lie on."""


@dataclass(frozen=True)
class Part:
    """A part of an image.

    Attributes:
        mask: bool, shape (p, q).
        row: Top row of the mask.
        column: Left column of the mask.
    """

    mask: np.ndarray
    row: int
    column: int

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the mask."""
        return slice(self.row, self.row + self.mask.shape[0]), slice(self.column, self.column + self.mask.shape[1])

    def centred_on(self, other: Part) -> Part:
        """The mask with its centre on that of another part; may leave the image."""
        row, column = (
            place + (side - own) // 2
            for place, side, own in zip((other.row, other.column), other.mask.shape, self.mask.shape, strict=True)
        )
        return Part(self.mask, row, column)


@dataclass(frozen=True)
class LabelledParts:
    """The label maps of an image and its parts.

    Attributes:
        labels: uint8, shape (M, h, w).
        parts: The parts; may overlap.
    """

    labels: np.ndarray
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, labels: np.ndarray, segments: Sequence[Segments]) -> Self:
        """Finds the parts in the largest segments of one or more segmentations.

        Args:
            labels: uint8, shape (M, h, w).
            segments: Segments of the same image.
        """
        found = []
        for one in segments:
            for mask in one.select(np.arange(min(len(one), _MOST_PARTS))).masks():
                part = _with_edge(evenly_spaced(mask, *labels.shape[1:]))
                if part is not None and part.mask.sum() <= _LARGEST_PART * labels[0].size:
                    found.append(part)
        return cls(labels, tuple(found))


def _with_edge(mask: np.ndarray) -> Part | None:
    """The part with its edge, in its box; None for an empty mask."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return None
    # Only the box is dilated: that is ten times as fast.
    box = tuple(
        slice(max(side.start - _EDGE, 0), min(side.stop + _EDGE, size))
        for side, size in zip(found[0], mask.shape, strict=True)
    )
    return Part(ndimage.binary_dilation(mask[box], iterations=_EDGE), box[0].start, box[1].start)


def altered_labels(
    images: Sequence[LabelledParts], each: int, seed: int, tries: int = 4
) -> Iterator[tuple[int, np.ndarray]]:
    """Alters every image a few times, each time in one way drawn at random.

    Args:
        images: Normal images.
        each: Number of altered copies of an image; fewer if its parts cannot be altered.
        seed: Seed of the draws.
        tries: Draws for each copy.

    Yields:
        The number of the image, and altered label maps: uint8, shape (M, h, w).
    """
    for number, image in enumerate(images):
        rng = np.random.default_rng([seed, number])
        made = 0
        for _ in range(each * tries if image.parts else 0):
            other = images[int(rng.integers(len(images)))]
            altered = ALTERATIONS[int(rng.integers(len(ALTERATIONS)))](_Canvas(image, rng), other)
            if altered is not None and (altered != image.labels).any():
                yield number, altered
                made += 1
            if made == each:
                break


class _Canvas:
    """Label maps that are being altered; operations return whether they were possible."""

    def __init__(self, image: LabelledParts, rng: np.random.Generator) -> None:
        self.image = image
        self.labels = image.labels.copy()
        self.rng = rng

    def pick(self, image: LabelledParts) -> Part:
        return image.parts[int(self.rng.integers(len(image.parts)))]

    def free_place(self, mask: np.ndarray) -> Part | None:
        """A place for a mask that covers almost no part."""
        _, height, width = self.labels.shape
        taken = np.zeros((height, width), dtype=bool)
        for part in self.image.parts:
            if part.mask.sum() < _SUPPORT * mask.sum():
                taken[part.box] |= part.mask
        height, width = height - mask.shape[0], width - mask.shape[1]
        if min(height, width) < 0:
            return None
        places = [
            Part(mask, int(self.rng.integers(height + 1)), int(self.rng.integers(width + 1))) for _ in range(_TRIES)
        ]
        covered = [(taken[place.box] & mask).sum() / mask.sum() for place in places]
        best = int(np.argmin(covered))
        return places[best] if covered[best] <= _FREE else None

    def put(self, source: np.ndarray, part: Part, place: Part | None) -> bool:
        """Copies the labels of a part, from the box of the part in `source`."""
        return self.put_patch(source[:, *part.box], place)

    def put_patch(self, patch: np.ndarray, place: Part | None) -> bool:
        if place is None or min(place.row, place.column) < 0:
            return False
        target = self.labels[:, *place.box]
        if target.shape != patch.shape:
            return False
        target[:, place.mask] = patch[:, place.mask]
        return True

    def erase(self, part: Part) -> bool:
        """Covers a part with the labels of a free place of the image."""
        free = self.free_place(part.mask)
        return free is not None and self.put(self.image.labels, free, part)


def _removed(canvas: _Canvas, _: LabelledParts) -> np.ndarray | None:
    return canvas.labels if canvas.erase(canvas.pick(canvas.image)) else None


def _added(canvas: _Canvas, other: LabelledParts) -> np.ndarray | None:
    source = other if other.parts and canvas.rng.random() < 0.5 else canvas.image
    part = canvas.pick(source)
    return canvas.labels if canvas.put(source.labels, part, canvas.free_place(part.mask)) else None


def _moved(canvas: _Canvas, _: LabelledParts) -> np.ndarray | None:
    part = canvas.pick(canvas.image)
    place = canvas.free_place(part.mask)
    return canvas.labels if canvas.erase(part) and canvas.put(canvas.image.labels, part, place) else None


def _swapped(canvas: _Canvas, _: LabelledParts) -> np.ndarray | None:
    first, second = canvas.pick(canvas.image), canvas.pick(canvas.image)
    source = canvas.image.labels
    possible = (
        first is not second
        and canvas.erase(first)
        and canvas.erase(second)
        and canvas.put(source, first, first.centred_on(second))
        and canvas.put(source, second, second.centred_on(first))
    )
    return canvas.labels if possible else None


def _turned(canvas: _Canvas, _: LabelledParts) -> np.ndarray | None:
    part = canvas.pick(canvas.image)
    quarters = int(canvas.rng.integers(1, 4))
    turned = Part(np.rot90(part.mask, quarters), part.row, part.column).centred_on(part)
    patch = np.rot90(canvas.image.labels[:, *part.box], quarters, axes=(1, 2))
    return canvas.labels if canvas.erase(part) and canvas.put_patch(patch, turned) else None


def _replaced(canvas: _Canvas, other: LabelledParts) -> np.ndarray | None:
    source = other if other.parts and canvas.rng.random() < 0.5 else canvas.image
    part, new = canvas.pick(canvas.image), canvas.pick(source)
    return canvas.labels if canvas.erase(part) and canvas.put(source.labels, new, new.centred_on(part)) else None


def _exchanged(canvas: _Canvas, other: LabelledParts) -> np.ndarray | None:
    """The same place of another image: what fits there may not fit the rest of this one."""
    part = canvas.pick(canvas.image)
    return canvas.labels if canvas.put(other.labels, part, part) else None


ALTERATIONS: Final[tuple[Callable[[_Canvas, LabelledParts], np.ndarray | None], ...]] = (
    _removed, _added, _moved, _swapped, _turned, _replaced, _exchanged
)  # fmt: skip
