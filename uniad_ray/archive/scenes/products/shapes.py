"""Procedural outlines of parts as signed distances: negative inside, zero on the outline.

Distances of basic shapes follow Quilez, "2D distance functions" (https://iquilezles.org/articles/distfunctions2d/).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from uniad_ray.archive.scenes.damage import BoolPlane
from uniad_ray.archive.scenes.shapes import Plane, rounded_box

REACH: Final = 1.6
"""Half the side of a square that contains every outline."""
_VISIBLE_CHANGE: Final = 0.4
"""Share of an outline's area that a turn must change to be plain to a person."""


@dataclass(frozen=True, slots=True)
class Outline:
    """Outline of a kind of part, in a square from -`REACH` to `REACH`.

    Attributes:
        family: Name of the family, a key of `FAMILIES`, or `digit`.
        numbers: Its parameters in [0, 1].
    """

    family: str
    numbers: tuple[float, ...]

    def distance(self, u: Plane, v: Plane) -> Plane:
        """Computes the signed distance at points of any shape; its scale is exact only near the outline."""
        family = _digit if self.family == "digit" else FAMILIES[self.family]
        return np.asarray(family(u, v, self.numbers), np.float32)

    def area(self) -> float:
        """Computes the area inside, in square units."""
        return _measures(self)[0]

    def radius(self) -> float:
        """Computes the radius of the circle around the origin that contains the outline."""
        return _measures(self)[1]

    def visible_turn(self) -> float | None:
        """Returns the turn that changes the outline most plainly, 180 or 90 degrees; None if neither shows."""
        return next((angle for angle in (180.0, 90.0) if _shows(self, angle)), None)

    def shows_turn(self, angle: float) -> bool:
        """Whether a person sees a turn by an angle, degrees."""
        return _shows(self, angle % 360)

    def inside(self, angle: float = 0.0, area: float | None = None) -> BoolPlane:
        """Draws the turned outline on a grid of 100 by 100 points, bool; scaled to an area if one is given."""
        scale = np.float32(1.0 if area is None else np.sqrt(area / self.area()))
        u, v = _grid(100)
        cos, sin = np.float32(np.cos(np.deg2rad(angle))), np.float32(np.sin(np.deg2rad(angle)))
        along = np.asarray((u * cos + v * sin) / scale, np.float32)
        across = np.asarray((v * cos - u * sin) / scale, np.float32)
        return np.asarray(self.distance(along, across) < 0)


def draw_outline(rng: np.random.Generator, family: str) -> Outline:
    """Draws an outline of a family."""
    return Outline(family, tuple(float(number) for number in rng.random(6)))


def likeness(one: Outline, two: Outline) -> float:
    """Computes how much of two outlines coincides in the best turn: intersection over union, at equal areas."""
    return _likeness(one, two)


@cache
def _likeness(one: Outline, two: Outline) -> float:
    still = one.inside(area=1.5)
    best = 0.0
    for angle in range(0, 360, 15):
        turned = two.inside(angle, area=1.5)
        best = max(best, float((still & turned).sum()) / max(1.0, float((still | turned).sum())))
    return best


@cache
def _measures(outline: Outline) -> tuple[float, float]:
    u, v = _grid(200)
    inside = outline.distance(u, v) < 0
    area = float(np.count_nonzero(inside)) * (2 * REACH / 200) ** 2
    return area, float(np.hypot(u, v)[inside].max(initial=0.01))


@cache
def _shows(outline: Outline, angle: float) -> bool:
    still = outline.inside()
    # A star that a small turn restores looks the same to a person.
    around = (outline.inside(angle + small) for small in range(-30, 31, 10))
    return min(int((still ^ turned).sum()) for turned in around) >= _VISIBLE_CHANGE * int(still.sum())


@cache
def _grid(points: int) -> tuple[Plane, Plane]:
    step = 2 * REACH / points
    axis = np.arange(-REACH, REACH - step / 2, step, dtype=np.float32) + np.float32(step / 2)
    u, v = np.meshgrid(axis, axis)
    return u, v


def _between(number: float, low: float, high: float) -> float:
    return low + number * (high - low)


def _polar(u: Plane, v: Plane) -> tuple[Plane, Plane]:
    return np.hypot(u, v), np.arctan2(v, u)


def _blob(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    radius, angle = _polar(u, v)
    edge = np.ones_like(radius)
    for wave, (strength, phase) in enumerate(((n[0], n[1]), (n[2], n[3]), (n[4], n[5])), start=2):
        edge += np.float32(_between(strength, 0.05, 0.22)) * np.cos(wave * angle + np.float32(2 * np.pi * phase))
    return np.asarray(radius - edge)


def _polygon(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    sides = 3 + int(n[0] * 5.999)
    longer = _between(n[1], 1.0, 1.5)
    radius, angle = _polar(u / np.float32(longer), v)
    turn = np.float32(2 * np.pi / sides)
    within = np.mod(angle + turn / 2, turn) - turn / 2
    rounding = _between(n[2], 0.03, 0.2)
    # The corners of triangles and of long polygons stay within reach.
    apothem = min(0.9, 1.5 * float(np.cos(np.pi / sides)) / longer)
    distance = radius * np.cos(within) - np.float32(apothem - rounding) - np.float32(rounding) * np.cos(within * 0.5)
    return np.asarray(distance)


def _disc(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    return np.asarray(np.hypot(u / np.float32(_between(n[0], 1.0, 1.4)), v) - np.float32(1.0))


def _ring(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    hole = np.float32(_between(n[1], 0.35, 0.7)) - np.hypot(u, v)
    outer = np.hypot(u, v) - np.float32(1.0) if n[0] < 0.5 else _hexagon(u, v)
    return np.maximum(outer, hole)


def _hexagon(u: Plane, v: Plane) -> npt.NDArray[np.floating]:
    across, along = np.abs(u), np.abs(v)
    return np.maximum(across * np.float32(0.8660254) + along * np.float32(0.5), along) - np.float32(0.95)


def _bar(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    half = _between(n[0], 0.25, 0.6)
    return rounded_box(u, v, 1.3, half, half * _between(n[1], 0.1, 1.0))


def _bolt(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    head = _between(n[0], 0.4, 0.6)
    top = rounded_box(u + np.float32(1.0), v, _between(n[1], 0.25, 0.45), head, 0.08)
    shaft = rounded_box(u - np.float32(0.25), v, 1.15, head * _between(n[2], 0.35, 0.55), 0.05)
    return np.minimum(top, shaft)


def _ell(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    thick = _between(n[0], 0.25, 0.4)
    long = rounded_box(u, v - np.float32(0.8), 1.1, thick, 0.08)
    short = rounded_box(u + np.float32(1.1 - thick), v + np.float32(0.1), thick, _between(n[1], 0.8, 1.1), 0.08)
    return np.minimum(long, short)


def _tee(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    thick = _between(n[0], 0.2, 0.38)
    return np.minimum(
        rounded_box(u, v + np.float32(0.8), 1.1, thick, 0.1), rounded_box(u, v - np.float32(0.1), thick, 1.0, 0.1)
    )


def _cross(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    thick = _between(n[0], 0.25, 0.42)
    return np.minimum(rounded_box(u, v, 1.15, thick, 0.1), rounded_box(u, v, thick, 1.15, 0.1))


def _gear(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    radius, angle = _polar(u, v)
    teeth = 6 + int(n[0] * 6.999)
    edge = 1.0 + 0.1 * np.tanh(4 * np.cos(teeth * angle))
    return np.asarray(np.maximum(radius - edge, np.float32(_between(n[1], 0.2, 0.4)) - radius))


def _clip(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    radius, angle = _polar(u, v)
    ring = np.abs(radius - np.float32(0.85)) - np.float32(_between(n[0], 0.15, 0.28))
    gap = np.float32(_between(n[1], 0.5, 1.0)) - np.abs(angle)
    return np.asarray(np.maximum(ring, gap * radius))


def _star(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    radius, angle = _polar(u, v)
    points = 4 + int(n[0] * 3.999)
    edge = 1 + np.float32(_between(n[1], 0.2, 0.35)) * np.cos(points * angle)
    return np.asarray(radius - np.float32(0.85) * edge)


def digit(value: int) -> Outline:
    """Returns the outline of a printed digit with seven segments, upright."""
    return Outline("digit", (float(value),))


_SEGMENTS: Final = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abfgcd")
_SEGMENT_BOXES: Final = {
    "a": (0.0, -1.0, 0.55, 0.13),
    "g": (0.0, 0.0, 0.55, 0.13),
    "d": (0.0, 1.0, 0.55, 0.13),
    "f": (-0.55, -0.5, 0.13, 0.6),
    "b": (0.55, -0.5, 0.13, 0.6),
    "e": (-0.55, 0.5, 0.13, 0.6),
    "c": (0.55, 0.5, 0.13, 0.6),
}
"""Middle and half sides of each segment."""


def _digit(u: Plane, v: Plane, n: tuple[float, ...]) -> npt.NDArray[np.floating]:
    boxes = [_SEGMENT_BOXES[segment] for segment in _SEGMENTS[int(n[0])]]
    distances = [
        rounded_box(u - np.float32(x), v - np.float32(y), half_u, half_v, 0.05) for x, y, half_u, half_v in boxes
    ]
    return np.asarray(np.minimum.reduce(distances))


FAMILIES: Final[dict[str, Callable[[Plane, Plane, tuple[float, ...]], npt.NDArray[np.floating]]]] = {
    "blob": _blob,
    "polygon": _polygon,
    "disc": _disc,
    "ring": _ring,
    "bar": _bar,
    "bolt": _bolt,
    "ell": _ell,
    "tee": _tee,
    "cross": _cross,
    "gear": _gear,
    "clip": _clip,
    "star": _star,
}
"""Signed distance of each family, from coordinates and six numbers in [0, 1]."""
