"""What every layout of a product offers, and the arranging of parts that layouts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from uniad_ray.archive.scenes.products.model import Break, Kind, Part, Rgb
from uniad_ray.archive.scenes.products.shapes import digit

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclass(slots=True)
class Arrangement:
    """The parts of one image.

    Attributes:
        parts: The parts; later ones lie on top.
        suspects: Indices of parts that may be reported for a broken rule.
        places: Boxes that may be reported for it.
        prints: What is printed and varies freely, such as a serial number; not parts.
    """

    parts: list[Part]
    suspects: list[int] = field(default_factory=list)
    places: list[Box] = field(default_factory=list)
    prints: list[Part] = field(default_factory=list)


class Layout(Protocol):
    """Arranges the parts of a product by its rules.

    Attributes:
        kinds: Kinds of the parts.
        rules: The rules as sentences.
        breaks: The rules' anomalies, each of which `broken` can draw.
        fixture_kinds: Kinds of what is fixed in every image.
        fixtures: What is fixed in every image, such as the walls of a tray; not parts.
        print_kinds: Kinds of what is printed and varies freely.
    """

    kinds: tuple[Kind, ...]
    rules: tuple[str, ...]
    breaks: tuple[Break, ...]
    fixture_kinds: tuple[Kind, ...]
    fixtures: tuple[Part, ...]
    print_kinds: tuple[Kind, ...]

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws an arrangement that keeps all rules."""
        ...

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws an arrangement that breaks one rule; each of its patches also occurs in normal images."""
        ...


def radius_of(kind: Kind) -> float:
    """Returns the radius of a circle around a part of a kind, pixels."""
    return kind.outline.radius() * kind.size


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
    for attempt in range(50):
        placed = list(taken)
        found: dict[int, tuple[float, float]] = {}
        # Closer only if many attempts leave no room.
        factor = clearance * 0.97 ** max(0, attempt - 20)
        for index in order:
            radius = radii[index]
            place = free_place(rng, radius, box, placed, factor)
            if place is None:
                break
            placed.append((*place, radius))
            found[index] = place
        if len(found) == len(radii):
            return [found[index] for index in range(len(radii))]
    raise ValueError("the parts do not fit into their box")


def free_place(
    rng: np.random.Generator,
    radius: float,
    box: Box,
    placed: Sequence[tuple[float, float, float]],
    factor: float,
) -> tuple[float, float] | None:
    """Draws a place for a circle that keeps clear of the placed ones, as in `scatter`; None if it finds none."""
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


def fits(parts: Sequence[Part], index: int, kind: Kind, kinds: Sequence[Kind], box: Box) -> bool:
    """Whether a part of another kind has room in the place of a part: within the box, and clear of the others."""
    place, radius = parts[index], radius_of(kind)
    left, top, right, bottom = box
    if not (left + radius <= place.x <= right - radius and top + radius <= place.y <= bottom - radius):
        return False
    others = (part for number, part in enumerate(parts) if number != index)
    return all(np.hypot(part.x - place.x, part.y - place.y) >= radius + radius_of(kinds[part.kind]) for part in others)


def serial_number(rng: np.random.Generator, length: int, box: Box) -> list[Part]:
    """Draws a printed number that fills the width of a box; the kinds of its parts are the ten digits."""
    left, top, right, bottom = box
    pitch = (right - left) / length
    return [
        Part(int(rng.integers(10)), left + (position + 0.5) * pitch, (top + bottom) / 2) for position in range(length)
    ]


def digit_kinds(colour: Rgb, length: int, box: Box) -> tuple[Kind, ...]:
    """Returns the kinds of `serial_number`: the ten digits in the size that fits the box."""
    left, top, right, bottom = box
    size = min((bottom - top) / 2.4, (right - left) / length / 1.7)
    return tuple(Kind(f"digit {value}", digit(value), size, colour, 0.0, 0.0, 0.1, 0.0) for value in range(10))
