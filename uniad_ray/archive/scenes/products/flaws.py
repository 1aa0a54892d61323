"""Draws damage of a stated size on a painted surface."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import numpy as np
from scipy import ndimage

from uniad_ray.archive.scenes.damage import BoolPlane, Surface
from uniad_ray.archive.scenes.products.model import Flaw
from uniad_ray.archive.scenes.shapes import Plane

_IN_MASK: Final = 0.4
_CONTRAST: Final = 0.22
"""Minimum difference in brightness of a channel between a flaw and what is beneath, so that a person can see it."""
_STRONGEST: Final = 0.95
"""Largest share of the flaw's own colour."""

TOLERANCE: Final = 0.08
"""Largest difference between the area of a flaw and its stated area, as a fraction."""
_PLACES, _ROUNDS = 10, 8


def draw_flaw(
    surface: Surface, flaw: Flaw, area: float, within: BoolPlane, rng: np.random.Generator
) -> BoolPlane | None:
    """Damages a surface in place.

    Args:
        surface: The surface.
        flaw: Which damage.
        area: Its area, pixels; the drawn one differs by at most `TOLERANCE`.
        within: Where it may be, bool [h, w]; at least one pixel.
        rng: Random generator for place and shape.

    Returns:
        The damaged pixels, bool [h, w]; None, with the surface as it was, if the flaw does not fit.
    """
    depth = ndimage.distance_transform_edt(np.pad(within, 1))[1:-1, 1:-1]
    # Near the middle of what is damaged, so that the border cuts off little.
    candidates = np.flatnonzero(depth >= min(0.5 * depth.max(), 1.2 * np.sqrt(area)))
    for _ in range(_PLACES):
        row, column = np.unravel_index(int(rng.choice(candidates)), within.shape)
        fitted = _fitted(flaw, area, within, (int(row), int(column)), int(rng.integers(2**32)))
        if fitted is not None:
            window, alpha, relief = fitted
            break
    else:
        return None
    core = alpha > _IN_MASK
    beneath = surface.albedo[window][core].mean(axis=0)
    colour = _visible_colour(beneath, flaw, rng)
    # From just visible to plain; a dent fades towards its rim.
    weakest = _strength_to_differ(beneath, colour, float(alpha.max()), 0.2 if flaw is Flaw.DENT else 0.12)
    strength = max(weakest, float(rng.uniform(0.4, _STRONGEST)))
    surface.albedo[window] += strength * alpha[..., None] * (colour - surface.albedo[window])
    surface.height[window] += relief
    if flaw in (Flaw.CRACK, Flaw.SPECK):
        surface.gloss[window] *= 1 - alpha
    mask = np.zeros(within.shape, np.bool_)
    mask[window] = core
    return mask


def _fitted(
    flaw: Flaw, area: float, within: BoolPlane, middle: tuple[int, int], seed: int
) -> tuple[tuple[slice, slice], Plane, Plane] | None:
    """Grows or shrinks one shape until its part within the bounds has the area; None if it cannot."""
    size = area
    for _ in range(_ROUNDS):
        reach = int(6 * np.sqrt(size)) + 4
        top, left = max(0, middle[0] - reach), max(0, middle[1] - reach)
        bottom, right = min(within.shape[0], middle[0] + reach + 1), min(within.shape[1], middle[1] + reach + 1)
        y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(middle[0])
        x = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(middle[1])
        window = (slice(top, bottom), slice(left, right))
        alpha, relief = _FLAWS[flaw](x, y, float(size), np.random.default_rng(seed))
        alpha, relief = alpha * within[window], relief * within[window]
        drawn = int(np.count_nonzero(alpha > _IN_MASK))
        if abs(drawn - area) <= TOLERANCE * area:
            return window, alpha, relief
        size *= float(np.clip(area / max(drawn, 1), 0.5, 2.0))
        if size > 4 * area:
            return None
    return None


def _brightness(albedo: np.ndarray) -> np.ndarray:
    """Albedo as the camera shows it: dark shades differ more than their albedo says."""
    return np.asarray(np.clip(albedo, 0, 1) ** (1 / 2.2))


def _strength_to_differ(beneath: np.ndarray, colour: np.ndarray, densest: float, least: float) -> float:
    """The smallest strength with which the densest pixel of a flaw differs by `least` in brightness, if one does."""
    strengths = np.linspace(0.0, _STRONGEST, 96)
    mixed = beneath + densest * strengths[:, None] * (colour - beneath)
    differs = np.abs(_brightness(mixed) - _brightness(beneath)).max(axis=1) >= least
    return float(strengths[np.argmax(differs)] if differs.any() else _STRONGEST)


def _visible_colour(beneath: np.ndarray, flaw: Flaw, rng: np.random.Generator) -> np.ndarray:
    """Draws a colour of the flaw's own that differs enough in brightness from what is beneath."""
    own = {
        Flaw.SCRATCH: ((0.85, 0.85, 0.83), (0.05, 0.05, 0.05)),
        Flaw.DENT: ((0.06, 0.06, 0.06), (0.8, 0.8, 0.8)),
        Flaw.STAIN: ((0.28, 0.14, 0.04), (0.03, 0.03, 0.04), (0.6, 0.55, 0.38)),
        Flaw.CRACK: ((0.01, 0.01, 0.01), (0.7, 0.7, 0.68)),
        Flaw.SPECK: ((0.02, 0.02, 0.02), (0.75, 0.74, 0.7), (0.5, 0.1, 0.1)),
        Flaw.CHIP: ((0.7, 0.68, 0.62), (0.12, 0.11, 0.1)),
    }[flaw]
    colours = [np.asarray(one, np.float32) for one in own]
    differences = [float(np.abs(_brightness(one) - _brightness(beneath)).max()) for one in colours]
    visible = [index for index, difference in enumerate(differences) if difference >= _CONTRAST]
    chosen = int(rng.choice(visible)) if visible else int(np.argmax(differences))
    return colours[chosen]


_Drawn = tuple[Plane, Plane]


def _scratch(x: Plane, y: Plane, area: float, rng: np.random.Generator) -> _Drawn:
    length = float(np.sqrt(area * rng.uniform(10, 18)))
    turn, curve = rng.uniform(0, np.pi), rng.uniform(-0.15, 0.15) / length
    along = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    across = y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn)) + np.float32(curve) * along**2
    beyond = np.maximum(np.abs(along) - np.float32(length / 2), 0)
    half = max(0.6, area / length / 2)
    alpha = np.clip(np.float32(half + 0.5) - np.hypot(across, beyond), 0, 1).astype(np.float32)
    return alpha, -1.2 * alpha


def _dent(x: Plane, y: Plane, area: float, rng: np.random.Generator) -> _Drawn:
    radius, squash = float(np.sqrt(area / np.pi)), float(rng.uniform(0.8, 1.25))
    distance = np.hypot(x * squash, y / squash) / radius
    bowl = np.where(distance < 1, -np.cos(np.minimum(distance, 1) * np.pi) - 1, 0)
    alpha = np.clip(1.15 - distance, 0, 1).astype(np.float32)
    return alpha, (0.25 * radius * bowl).astype(np.float32)


def _blob(x: Plane, y: Plane, area: float, rng: np.random.Generator) -> Plane:
    angle = np.arctan2(y, x)
    edge = np.full(angle.shape, np.sqrt(area / np.pi), np.float32)
    for wave in (2, 3, 5):
        edge *= 1 + rng.uniform(0.05, 0.18) * np.sin(wave * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray(np.clip((edge - np.hypot(x, y)) / 1.2 + 0.5, 0, 1), np.float32)


def _stain(x: Plane, y: Plane, area: float, rng: np.random.Generator) -> _Drawn:
    alpha = _blob(x, y, area, rng)
    return 0.85 * alpha, np.zeros_like(alpha)


def _speck(x: Plane, y: Plane, area: float, rng: np.random.Generator) -> _Drawn:
    alpha = _blob(x, y, area, rng)
    return alpha, 3.0 * alpha


def _chip(x: Plane, y: Plane, area: float, rng: np.random.Generator) -> _Drawn:
    alpha = _blob(x, y, area, rng)
    return alpha, -3.0 * alpha


def _crack(x: Plane, y: Plane, area: float, rng: np.random.Generator) -> _Drawn:
    length = float(np.sqrt(area * rng.uniform(14, 24)))
    steps = 7
    heading = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.8, 0.8, steps)
    moves = np.stack([np.cos(heading), np.sin(heading)], axis=1) * length / steps
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)])
    points -= points[steps // 2]
    nearest = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf, np.float32)
    for (x1, y1), (x2, y2) in pairwise(points):
        dx, dy = x2 - x1, y2 - y1
        share = np.clip(((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy), 0, 1)
        np.minimum(nearest, np.hypot(x - x1 - share * dx, y - y1 - share * dy), out=nearest)
    half = max(0.6, area / length / 2)
    alpha = np.clip(np.float32(half + 0.5) - nearest, 0, 1).astype(np.float32)
    return alpha, -1.5 * alpha


_FLAWS: Final[dict[Flaw, Callable[[Plane, Plane, float, np.random.Generator], _Drawn]]] = {
    Flaw.SCRATCH: _scratch,
    Flaw.DENT: _dent,
    Flaw.STAIN: _stain,
    Flaw.CRACK: _crack,
    Flaw.SPECK: _speck,
    Flaw.CHIP: _chip,
}
