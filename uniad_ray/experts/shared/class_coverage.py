"""Areas covered by the classes of an image's segments, on the grid of a map."""

from __future__ import annotations

import numpy as np

from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.segments import Segments


def class_coverage(segments: Segments, side: int) -> dict[str, np.ndarray]:
    """The cells covered by each class: bool, shape (side, side), by name.

    Args:
        segments: Segments with names.
        side: Side of the grid.
    """
    found: dict[str, np.ndarray] = {}
    for name, mask in zip(segments.names, segments.masks(), strict=True):
        cells = evenly_spaced(mask, side, side)
        found[name] = found[name] | cells if name in found else cells
    return found
