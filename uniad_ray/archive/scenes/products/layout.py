"""What every layout of a product offers, and the arranging of parts that layouts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from uniad_ray.archive.scenes.products.model import Break, Kind, Part

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclass(slots=True)
class Arrangement:
    """The parts of one image.

    Attributes:
        parts: The parts; later ones lie on top.
        suspects: Indices of parts that may be reported for a broken rule.
        places: Boxes that may be reported for it.
    """

    parts: list[Part]
    suspects: list[int] = field(default_factory=list)
    places: list[Box] = field(default_factory=list)


class Layout(Protocol):
    """Arranges the parts of a product by its rules.

    Attributes:
        kinds: Kinds of the parts.
        rules: The rules as sentences.
        breaks: The rules' anomalies, each of which `broken` can draw.
        fixture_kinds: Kinds of what is fixed in every image.
        fixtures: What is fixed in every image, such as the walls of a tray; not parts.
    """

    kinds: tuple[Kind, ...]
    rules: tuple[str, ...]
    breaks: tuple[Break, ...]
    fixture_kinds: tuple[Kind, ...]
    fixtures: tuple[Part, ...]

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws an arrangement that keeps all rules."""
        ...

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws an arrangement that breaks one rule; each of its patches also occurs in normal images."""
        ...


def radius_of(kind: Kind) -> float:
    """Returns the radius of a circle around a part of a kind, pixels."""
    return 1.25 * kind.size


def scatter(
    rng: np.random.Generator,
    radii: Sequence[float],
    box: Box,
    taken: Sequence[tuple[float, float, float]] = (),
    clearance: float = 1.0,
) -> list[tuple[float, float]]:
    """Draws places for circles that do not overlap.

    Args:
        rng: Random generator.
        radii: Radius of each circle, pixels.
        box: Where the circles must lie.
        taken: Circles that are there already: middle and radius.
        clearance: Factor of the distance that two circles keep; below 1 they may touch or overlap a little.
    """
    order = sorted(range(len(radii)), key=lambda index: -radii[index])
    for attempt in range(40):
        placed = list(taken)
        found: dict[int, tuple[float, float]] = {}
        factor = clearance * 0.97**attempt
        for index in order:
            radius = radii[index]
            place = _free_place(rng, radius, box, placed, factor)
            if place is None:
                break
            placed.append((*place, radius))
            found[index] = place
        if len(found) == len(radii):
            return [found[index] for index in range(len(radii))]
    raise ValueError("the parts do not fit into their box")


def _free_place(
    rng: np.random.Generator,
    radius: float,
    box: Box,
    placed: Sequence[tuple[float, float, float]],
    factor: float,
) -> tuple[float, float] | None:
    left, top, right, bottom = box
    inset = min(radius, (right - left) / 2 - 0.5, (bottom - top) / 2 - 0.5)
    others = np.array(placed, dtype=float).reshape(-1, 3)
    for _ in range(200):
        x, y = rng.uniform(left + inset, right - inset), rng.uniform(top + inset, bottom - inset)
        if (np.hypot(others[:, 0] - x, others[:, 1] - y) >= factor * (others[:, 2] + radius)).all():
            return float(x), float(y)
    return None


def other_index(rng: np.random.Generator, count: int, index: int) -> int:
    """Draws another index below a count."""
    return int((index + rng.integers(1, count)) % count)


def box_around(part: Part, radius: float) -> Box:
    """Returns the box around a part."""
    return part.x - radius, part.y - radius, part.x + radius, part.y + radius
