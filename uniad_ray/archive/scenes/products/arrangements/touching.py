"""Places parts in groups that touch: each slides towards another one until their outlines meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from uniad_ray.archive.scenes.products.arrangements.base import Box, free_place, radius_of
from uniad_ray.archive.scenes.products.model import Kind, Part
from uniad_ray.archive.scenes.products.shapes import REACH, Outline

_TOUCHING_SHARE = 0.65
_TRIES = 24


def place_touching(
    rng: np.random.Generator, parts: Sequence[Part], kinds: Sequence[Kind], box: Box
) -> list[Part] | None:
    """Draws places for parts of which most touch another one and none overlap by more than a pixel.

    Args:
        rng: Random generator.
        parts: The parts with their kinds, angles and scales; their places are ignored.
        kinds: Kinds of the parts.
        box: Where the parts must lie.

    Returns:
        The parts in the same order, with their places; None if they do not fit.
    """
    placed: dict[int, Part] = {}
    for index in sorted(range(len(parts)), key=lambda number: -radius_of(kinds[parts[number].kind])):
        part = None
        if placed and rng.random() < _TOUCHING_SHARE:
            part = _slid(rng, parts[index], list(placed.values()), kinds, box)
        if part is None:
            circles = [(other.x, other.y, radius_of(kinds[other.kind])) for other in placed.values()]
            place = free_place(rng, radius_of(kinds[parts[index].kind]), box, circles, 1.0)
            if place is None:
                return None
            part = replace(parts[index], x=place[0], y=place[1])
        placed[index] = part
    return [placed[index] for index in range(len(parts))]


def overlap(one: Part, two: Part, kinds: Sequence[Kind]) -> bool:
    """Whether the outlines of two parts overlap."""
    if np.hypot(one.x - two.x, one.y - two.y) > radius_of(kinds[one.kind]) * one.scale + radius_of(kinds[two.kind]) * (
        two.scale
    ):
        return False
    rim = _rim(kinds[two.kind].outline) * (kinds[two.kind].size * two.scale)
    rim = rim @ _turn(two.angle).T + (two.x - one.x, two.y - one.y)
    local = (rim @ _turn(-one.angle).T / (kinds[one.kind].size * one.scale)).astype(np.float32)
    return bool((kinds[one.kind].outline.distance(local[:, 0], local[:, 1]) < 0).any())


def _slid(rng: np.random.Generator, part: Part, placed: list[Part], kinds: Sequence[Kind], box: Box) -> Part | None:
    """Slides a part towards a random other one until they touch; None if there is no room."""
    radius = radius_of(kinds[part.kind]) * part.scale
    left, top, right, bottom = box
    for _ in range(_TRIES):
        goal = placed[int(rng.integers(len(placed)))]
        heading = rng.uniform(0, 2 * np.pi)
        step = np.array([np.cos(heading), np.sin(heading)])
        far, near = radius + radius_of(kinds[goal.kind]) * goal.scale, 0.0
        # The first overlap on the way in: coarse steps, then halving.
        for distance in np.linspace(far, 0.0, 25)[1:]:
            if overlap(goal, _at(part, goal, step, float(distance)), kinds):
                near = float(distance)
                break
            far = float(distance)
        for _ in range(6):
            middle = (far + near) / 2
            if overlap(goal, _at(part, goal, step, middle), kinds):
                near = middle
            else:
                far = middle
        moved = _at(part, goal, step, near)
        inside = left + radius <= moved.x <= right - radius and top + radius <= moved.y <= bottom - radius
        if inside and not any(overlap(other, moved, kinds) for other in placed if other is not goal):
            return moved
    return None


def _at(part: Part, goal: Part, step: npt.NDArray[np.float64], distance: float) -> Part:
    return replace(part, x=goal.x + distance * float(step[0]), y=goal.y + distance * float(step[1]))


def _turn(angle: float) -> npt.NDArray[np.float64]:
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.array([[cos, -sin], [sin, cos]])


@cache
def _rim(outline: Outline) -> npt.NDArray[np.float64]:
    """Points along the outline, in its own units, [n, 2]."""
    inside = outline.inside()
    rows, columns = np.nonzero(inside & ~ndimage.binary_erosion(inside))
    step = 2 * REACH / inside.shape[0]
    return np.asarray(np.stack([columns, rows], axis=1) * step + (step / 2 - REACH))
