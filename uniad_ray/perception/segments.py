"""Segments of one image: bit-packed masks with boxes, areas, confidences and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

MOST_SEGMENTS: Final = 512
"""Maximum number of segments per image; only the largest are kept."""


@dataclass(frozen=True)
class Segments:
    """The n segments of one image, the largest first; they may overlap and need not cover the image.

    Attributes:
        size: Height h and width w of the masks.
        packed: uint8, shape (n, ceil(h w / 8)): the masks row by row, eight pixels per byte.
        boxes: float32, shape (n, 4): top, left, bottom and right, each in 0..1.
        areas: float32, shape (n,): fraction of the image, in 0..1.
        confidences: float32, shape (n,), in 0..1: confidence of the segmenter.
        ids: int64, shape (n,): index of the segment in its image; `select` keeps it.
        names: n class names, or empty if the segments have no names.
    """

    size: tuple[int, int]
    packed: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    confidences: np.ndarray
    ids: np.ndarray
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, masks: np.ndarray, confidences: np.ndarray | None = None, names: Sequence[str] = ()) -> Self:
        """Packs masks; drops empty ones and keeps the `MOST_SEGMENTS` largest.

        Args:
            masks: bool, shape (n, h, w).
            confidences: float, shape (n,), in 0..1; default 1.
            names: n class names, or empty.
        """
        count, height, width = masks.shape
        sure = np.ones(count, dtype=np.float32) if confidences is None else np.asarray(confidences, dtype=np.float32)
        areas = masks.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        boxes = np.array([_box(mask) for mask in masks], dtype=np.float32).reshape(count, 4)
        # Ties in area are broken by position: the order must not depend on the order of the masks.
        order = np.lexsort((boxes[:, 1], boxes[:, 0], -areas))
        kept = order[areas[order] > 0][:MOST_SEGMENTS]
        return cls(
            size=(height, width),
            packed=np.packbits(masks[kept].reshape(len(kept), height * width), axis=1),
            boxes=boxes[kept],
            areas=areas[kept],
            confidences=sure[kept],
            ids=np.arange(len(kept)),
            names=tuple(names[row] for row in kept) if names else (),
        )

    def __len__(self) -> int:
        """The number of segments n."""
        return len(self.packed)

    def masks(self) -> np.ndarray:
        """The masks: bool, shape (n, h, w)."""
        height, width = self.size
        flat = np.unpackbits(self.packed, axis=1, count=height * width)
        return flat.reshape(len(self), height, width).astype(bool)

    def select(self, rows: np.ndarray) -> Segments:
        """A subset of the segments, in their order.

        Args:
            rows: Positions, ascending, or bool of shape (n,).
        """
        positions = np.arange(len(self))[rows]
        names = tuple(self.names[position] for position in positions) if self.names else ()
        columns = {name: getattr(self, name)[positions] for name in _COLUMNS}
        return replace(self, **columns, names=names)

    def named(self, names: Sequence[str]) -> Segments:
        """The same segments with names.

        Raises:
            ValueError: The numbers of names and segments differ.
        """
        if len(names) != len(self):
            raise ValueError(f"got {len(names)} names for {len(self)} segments; pass one name per segment")
        return replace(self, names=tuple(names))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name; `size` and `names` are stored separately."""
        return {name: getattr(self, name) for name in _COLUMNS}

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray], size: tuple[int, int], names: Sequence[str] = ()) -> Self:
        """Restores segments from the result of `arrays`.

        Raises:
            ValueError: The shapes are inconsistent.
        """
        found = cls(size=size, names=tuple(names), **{name: arrays[name] for name in _COLUMNS})
        count = len(found)
        bytes_a_mask = -(-size[0] * size[1] // 8)
        shapes = {"packed": (count, bytes_a_mask), "boxes": (count, 4)}
        if any(arrays[name].shape != shapes.get(name, (count,)) for name in _COLUMNS) or len(names) not in (0, count):
            raise ValueError("the arrays of the segments have inconsistent shapes")
        return found


_COLUMNS: Final = ("packed", "boxes", "areas", "confidences", "ids")


def overlaps(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pairwise intersection over union of two sets of masks.

    Args:
        masks: bool, shape (n, h, w).
        others: bool, shape (m, h, w).

    Returns:
        float64, shape (n, m), in 0..1; 0 if both masks are empty.
    """
    flat, other_flat = (each.reshape(len(each), -1).astype(np.float32) for each in (masks, others))
    shared = flat @ other_flat.T
    union = flat.sum(axis=1)[:, None] + other_flat.sum(axis=1)[None] - shared
    return np.asarray(shared / np.maximum(union, 1.0), dtype=np.float64)


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return rows[0] / height, columns[0] / width, (rows[-1] + 1) / height, (columns[-1] + 1) / width
