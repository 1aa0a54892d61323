"""Instances: the named segments of an image with their places, colours, directions and vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from uniad_ray.experts.relations.directions import directions
from uniad_ray.perception.colours import cielab
from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.segments import Segments

NO_KIND: Final = "a piece of no known part"
"""Kind of the instances with omitted names."""


@dataclass(frozen=True)
class Instances:
    """The n described instances of one image, or of several images in a row.

    Attributes:
        kinds: Kind of each instance: its name, or `NO_KIND`.
        centres: float32, shape (n, 2): row and column of the mean pixel, each in 0..1.
        boxes: float32, shape (n, 4): top, left, bottom and right, each in 0..1.
        colours: float32, shape (n, 3): mean brightness in 0..100, and mean a and b of CIELAB.
        directions: float32, shape (n, 8), in -1..1, from `directions`.
        vectors: One array per field, float32, shape (n, C).
        further: Kinds of the instances that are not described, of one image.
    """

    kinds: tuple[str, ...]
    centres: np.ndarray
    boxes: np.ndarray
    colours: np.ndarray
    directions: np.ndarray
    vectors: Sequence[np.ndarray]
    further: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of described instances n."""
        return len(self.kinds)

    def counts(self) -> dict[str, int]:
        """Number of all instances by kind, without `NO_KIND`."""
        return dict(Counter(kind for kind in (*self.kinds, *self.further) if kind != NO_KIND))


def describe_instances(
    segments: Segments, vectors: Sequence[np.ndarray], image: np.ndarray, left_out: Collection[str], most: int
) -> Instances:
    """Describes the largest segments of one image.

    Args:
        segments: The segments, largest first, with names.
        vectors: One array per field, float32, one row for each segment.
        image: uint8, shape (H, W, 3), RGB.
        left_out: Names that do not count as kinds.
        most: Maximum number of instances to describe; the others are only counted.
    """
    kinds = tuple(NO_KIND if name in left_out else name for name in segments.names)
    segments = segments.select(np.arange(min(len(segments), most)))
    rows, columns = segments.size
    row, column = (np.indices(segments.size) + 0.5) / np.array([rows, columns])[:, None, None]
    colours = evenly_spaced(image, rows, columns)
    _, a, b = np.moveaxis(cielab(colours), -1, 0)
    pixels = np.stack([row, column, colours.mean(axis=2) / 2.55, a, b], axis=2)
    masks = segments.masks()
    means = np.array([pixels[mask].mean(axis=0) for mask in masks], dtype=np.float32).reshape(-1, 5)
    return Instances(
        kinds=kinds[:most],
        centres=means[:, :2],
        boxes=segments.boxes,
        colours=means[:, 2:],
        directions=directions(masks),
        vectors=[each[:most] for each in vectors],
        further=kinds[most:],
    )
