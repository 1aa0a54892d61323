"""Draws surface damage: scratch, dent, stain and crack on a painted canvas, and the deformation of a part."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from uniad_ray.archive.scenes.model import PartKind, StructuralDefect
from uniad_ray.archive.scenes.shapes import Deformation, Plane

_STAINS = ((0.04, 0.03, 0.03), (0.38, 0.15, 0.04), (0.60, 0.55, 0.38))

BoolPlane = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Surface:
    """A window of the canvas that is damaged in place.

    Attributes:
        albedo: Colour before lighting, float32 [h, w, 3] in [0, 1].
        height: Height, float32 [h, w] in reference pixels.
        gloss: Strength of the highlight, float32 [h, w] in [0, 1].
    """

    albedo: npt.NDArray[np.float32]
    height: Plane
    gloss: Plane


def draw_deformation(kind: PartKind, rng: np.random.Generator) -> Deformation:
    """Draws the deformation of a part: long parts are bent, others lose a piece of their rim.

    Args:
        kind: The part.
        rng: Random generator for the shape.
    """
    sign = 1.0 if rng.random() < 0.5 else -1.0
    if kind in (PartKind.BOLT, PartKind.PIN):
        return Deformation(bend=sign * float(rng.uniform(8.0, 11.0)))
    if kind is PartKind.BLOCK:
        corner = (sign * 17.0, (1.0 if rng.random() < 0.5 else -1.0) * 11.0)
        return Deformation(bite=corner, bite_radius=float(rng.uniform(9.0, 12.0)))
    direction = rng.uniform(0, 2 * np.pi)
    centre = (float(12.0 * np.cos(direction)), float(12.0 * np.sin(direction)))
    return Deformation(bite=centre, bite_radius=float(rng.uniform(7.5, 9.5)))


def damage_surface(
    surface: Surface, kind: StructuralDefect, x: Plane, y: Plane, within: BoolPlane, rng: np.random.Generator
) -> BoolPlane:
    """Damages a surface in place.

    Args:
        surface: The surface to damage.
        kind: Scratch, dent, stain or crack.
        x: Reference pixels to the right of the middle of the damage, [h, w].
        y: Reference pixels below it, [h, w].
        within: Pixels that can be damaged. A scratch, a dent or a crack ends at their border; a stain does not.
        rng: Random generator for the shape.

    Returns:
        The damaged pixels, bool [h, w].

    Raises:
        ValueError: If `kind` is a deformation, which is applied before painting.
    """
    if kind is StructuralDefect.SCRATCH:
        return _scratch(surface, x, y, within, rng)
    if kind is StructuralDefect.DENT:
        return _dent(surface, x, y, within, rng)
    if kind is StructuralDefect.STAIN:
        return _stain(surface, x, y, rng)
    if kind is StructuralDefect.CRACK:
        return _crack(surface, x, y, within, rng)
    raise ValueError(f"{kind} is not a damage of a painted surface; deform the part before painting it")


def _paint(surface: Surface, alpha: Plane, colour: tuple[float, float, float]) -> None:
    surface.albedo += alpha[..., None] * (np.asarray(colour, np.float32) - surface.albedo)


def _scratch(surface: Surface, x: Plane, y: Plane, within: BoolPlane, rng: np.random.Generator) -> BoolPlane:
    turn, curve = rng.uniform(0, np.pi), rng.uniform(-0.012, 0.012)
    along = (x * np.cos(turn) + y * np.sin(turn)).astype(np.float32)
    across = (y * np.cos(turn) - x * np.sin(turn)).astype(np.float32)
    across += np.float32(curve) * along**2
    half_length, half_width = rng.uniform(17, 24), rng.uniform(1.1, 1.6)
    offset = np.maximum(np.abs(along) - np.float32(half_length), 0)
    nearest = np.hypot(np.minimum(np.abs(across), np.abs(across - 4.0) + 0.3), offset)
    alpha = (np.clip(half_width + 0.5 - nearest, 0, 1) * within).astype(np.float32)
    _paint(surface, 0.85 * alpha, (0.93, 0.93, 0.9))
    surface.height -= 1.2 * alpha
    return np.asarray((nearest < half_width + 0.8) & within)


def _dent(surface: Surface, x: Plane, y: Plane, within: BoolPlane, rng: np.random.Generator) -> BoolPlane:
    radius, squash = rng.uniform(10.0, 13.0), rng.uniform(0.8, 1.2)
    distance = np.hypot(x * squash, y / squash) / radius
    bowl = np.where(distance < 1, -np.cos(np.minimum(distance, 1) * np.pi) - 1, 0)
    rim = np.exp(-(((distance - 1.05) / 0.18) ** 2))
    surface.height += ((5.5 * bowl + 2.2 * rim) * within).astype(np.float32)
    _paint(surface, (0.35 * np.clip(1.1 - distance, 0, 1) * within).astype(np.float32), (0.1, 0.1, 0.1))
    return np.asarray((distance < 1.3) & within)


def _stain(surface: Surface, x: Plane, y: Plane, rng: np.random.Generator) -> BoolPlane:
    angle = np.arctan2(y, x)
    outline = np.full_like(x, rng.uniform(11.0, 15.0))
    for wave in (2, 3, 5):
        outline *= 1 + rng.uniform(0.05, 0.16) * np.sin(wave * angle + rng.uniform(0, 2 * np.pi))
    inside = np.clip((outline - np.hypot(x, y)) / 2.0 + 0.5, 0, 1).astype(np.float32)
    edge = np.exp(-(((outline - np.hypot(x, y)) / 1.5) ** 2))
    # Of oil, rust and grease, the colour that differs most from the surface.
    beneath = surface.albedo[inside > 0.5].mean(axis=0)
    colour = max(_STAINS, key=lambda stain: float(np.abs(beneath - stain).sum()))
    _paint(surface, (inside * (0.78 + 0.2 * edge)).astype(np.float32), colour)
    surface.gloss += 0.15 * inside
    return np.asarray(inside > 0.4)


def _crack(surface: Surface, x: Plane, y: Plane, within: BoolPlane, rng: np.random.Generator) -> BoolPlane:
    turn = rng.uniform(0, np.pi)
    steps = 8
    heading = turn + rng.uniform(-0.75, 0.75, size=steps)
    length = rng.uniform(38, 50) / steps
    moves = np.stack([np.cos(heading), np.sin(heading)], axis=1) * length
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)])
    points -= points[steps // 2]
    fork = points[steps // 2] + length * 2.2 * np.array([np.cos(turn + 0.9), np.sin(turn + 0.9)])
    segments = [*pairwise(points), (points[steps // 2], fork)]
    nearest = np.full_like(x, np.inf)
    for start, end in segments:
        nearest = np.minimum(nearest, _to_segment(x, y, start, end))
    alpha = (np.clip(rng.uniform(1.4, 1.8) + 0.5 - nearest, 0, 1) * within).astype(np.float32)
    _paint(surface, 0.92 * alpha, (0.02, 0.02, 0.02))
    surface.height -= 1.5 * alpha
    surface.gloss *= 1 - alpha
    return np.asarray((nearest < 2.1) & within)


def _to_segment(x: Plane, y: Plane, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]) -> Plane:
    step = end - start
    along = np.clip(((x - start[0]) * step[0] + (y - start[1]) * step[1]) / (step @ step), 0, 1)
    nearest = np.hypot(x - start[0] - along * step[0], y - start[1] - along * step[1])
    return np.asarray(nearest, np.float32)


def deformation_mask(sound: BoolPlane, deformed: BoolPlane) -> BoolPlane:
    """Pixels where a deformed part differs from a sound one, grown by one pixel so that thin strips count."""
    return np.asarray(ndimage.binary_dilation(sound ^ deformed))
