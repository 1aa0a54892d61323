"""Shapes of the parts as signed distances and reliefs, in reference pixels (a 256-pixel image).

Signed distances follow Quilez, "2D distance functions" (https://iquilezles.org/articles/distfunctions2d/): negative
inside, zero on the outline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from uniad_ray.archive.scenes.model import PartKind

Plane = npt.NDArray[np.float32]

PART_SCALE = 1.5
"""Size of a part at scale 1, relative to the lengths in this file."""

REACH = 43.0
"""Half the side of a square that contains any part in any orientation or bend, in reference pixels."""


@dataclass(frozen=True, slots=True)
class Deformation:
    """A bent part, or one with a piece broken off.

    Attributes:
        bend: Sideways displacement of the ends, in reference pixels.
        bite: Middle of the missing piece, in the part's own coordinates.
        bite_radius: Radius of the missing piece; 0 for none.
    """

    bend: float = 0.0
    bite: tuple[float, float] = (0.0, 0.0)
    bite_radius: float = 0.0


@dataclass(frozen=True, slots=True)
class Solid:
    """Shape of a part on a grid of points.

    Attributes:
        distance: Signed distance to the outline, negative inside.
        relief: Height above the floor.
    """

    distance: Plane
    relief: Plane


def solid(kind: PartKind, u: Plane, v: Plane, deformation: Deformation | None = None) -> Solid:
    """Computes the shape of a part at points in its own coordinates.

    Args:
        kind: The part.
        u: Coordinate along the part, reference pixels, any shape.
        v: Coordinate across it.
        deformation: Bends the part or breaks a piece off; None for a sound part.

    Returns:
        Distance and relief, with the shape of `u`.
    """
    if deformation is not None:
        v = v - np.float32(deformation.bend) * (u / np.float32(20.0)) ** 2
    shape = _SHAPES[kind](u, v)
    if deformation is None or deformation.bite_radius <= 0:
        return shape
    off_u, off_v = u - np.float32(deformation.bite[0]), v - np.float32(deformation.bite[1])
    ragged = 1.0 + 0.15 * np.sin(5.0 * np.arctan2(off_v, off_u)) + 0.1 * np.sin(9.0 * np.arctan2(off_u, off_v))
    bite = (deformation.bite_radius * ragged - np.hypot(off_u, off_v)).astype(np.float32)
    return Solid(np.maximum(shape.distance, bite), shape.relief)


def nominal_area(kind: PartKind) -> float:
    """Area of a part at scale 1, in square reference pixels."""
    step = 0.125
    axis = np.arange(-REACH / PART_SCALE, REACH / PART_SCALE, step, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    return float(np.count_nonzero(solid(kind, u, v).distance < 0)) * (step * PART_SCALE) ** 2


def rounded_box(u: Plane, v: Plane, half_u: float, half_v: float, radius: float) -> Plane:
    """Signed distance to a box with rounded corners; `half_u` and `half_v` are its outer half sides."""
    out_u = np.abs(u) - np.float32(half_u - radius)
    out_v = np.abs(v) - np.float32(half_v - radius)
    outside = np.hypot(np.maximum(out_u, 0), np.maximum(out_v, 0))
    inside = np.minimum(np.maximum(out_u, out_v), 0)
    return np.asarray(outside + inside - np.float32(radius), np.float32)


def _hexagon(u: Plane, v: Plane, apothem: float) -> Plane:
    across, along = np.abs(u), np.abs(v)
    slanted = across * np.float32(0.8660254) + along * np.float32(0.5)
    return np.maximum(slanted, along) - np.float32(apothem)


def _bevel(distance: Plane, width: float) -> Plane:
    ramp = np.clip(-distance / np.float32(width), 0, 1)
    return np.asarray(ramp * (2 - ramp), np.float32)


def _barrel(v: Plane, radius: float) -> Plane:
    return np.asarray(np.sqrt(np.maximum(1 - (v / np.float32(radius)) ** 2, 0)), np.float32)


def _bolt(u: Plane, v: Plane) -> Solid:
    head = _hexagon(u + np.float32(11), v, 9.5)
    shaft = rounded_box(u - np.float32(8), v, 14.0, 4.5, 1.0)
    thread = np.where(u > 4, np.float32(0.45) * np.sin(u * np.float32(2 * np.pi / 3.2)), 0).astype(np.float32)
    head_relief = 6.0 * _bevel(head, 3.0) - 0.8 * (np.hypot(u + 11, v) < 5.0)
    relief = np.where(head < 0, head_relief, 3.5 * _barrel(v, 4.6) + thread)
    return Solid(np.minimum(head, shaft), relief.astype(np.float32))


def _nut(u: Plane, v: Plane) -> Solid:
    distance = np.maximum(_hexagon(u, v, 13.0), np.float32(7) - np.hypot(u, v))
    return Solid(distance, (5.0 * _bevel(distance, 2.5)).astype(np.float32))


def _washer(u: Plane, v: Plane) -> Solid:
    radius = np.hypot(u, v)
    distance = np.maximum(radius - np.float32(15), np.float32(7.5) - radius)
    return Solid(distance, (2.0 * _bevel(distance, 2.0)).astype(np.float32))


def _pin(u: Plane, v: Plane) -> Solid:
    body = rounded_box(u, v, 21.0, 5.0, 5.0)
    collar = rounded_box(u + np.float32(9), v, 3.0, 9.0, 1.5)
    relief = np.maximum(4.5 * _barrel(v, 5.2), 5.5 * _bevel(collar, 1.5))
    return Solid(np.minimum(body, collar), relief.astype(np.float32))


def _block(u: Plane, v: Plane) -> Solid:
    distance = rounded_box(u, v, 19.0, 12.5, 2.5)
    studs = np.minimum(np.hypot(u - np.float32(8.5), v), np.hypot(u + np.float32(8.5), v)) - np.float32(5.5)
    return Solid(distance, (5.5 * _bevel(distance, 2.5) + 2.0 * _bevel(studs, 1.5)).astype(np.float32))


_SHAPES: dict[PartKind, Callable[[Plane, Plane], Solid]] = {
    PartKind.BOLT: _bolt,
    PartKind.NUT: _nut,
    PartKind.WASHER: _washer,
    PartKind.PIN: _pin,
    PartKind.BLOCK: _block,
}
