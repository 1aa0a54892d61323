"""Draws the kinds of parts of a product: shapes, sizes and colours that a person can tell apart."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np

from uniad_ray.archive.scenes.products.model import Kind, Rgb
from uniad_ray.archive.scenes.products.shapes import FAMILIES, draw_outline, likeness

_PLAIN_CONTRAST: Final = 0.16
"""Difference of a colour channel that is plain to a person."""
_MOST_LIKENESS: Final = 0.82
"""Shapes of one colour that coincide in more than this share look alike."""


def draw_kinds(rng: np.random.Generator, shape: tuple[int, int], ground: Rgb) -> tuple[Kind, ...]:
    """Draws two to five kinds that differ from the ground, and from each other in shape or colour.

    Args:
        rng: Random generator.
        shape: Height and width of the images, pixels; parts take 1 to 20 % of their area.
        ground: Colour of the ground.

    Raises:
        ValueError: Two kinds look alike.
    """
    number = int(rng.integers(2, 6))
    families = [str(one) for one in rng.choice(list(FAMILIES), number, replace=False)]
    unit = float(np.sqrt(shape[0] * shape[1]))
    one_colour = rng.random() < 0.35
    shared = _contrasting(rng, ground, 0.0 if rng.random() < 0.6 else 0.6)
    kinds = []
    largest = float(np.exp(rng.uniform(np.log(0.015), np.log(0.2))))
    for family in families:
        outline = draw_outline(rng, family)
        share = float(np.exp(rng.uniform(np.log(0.01), np.log(max(0.0101, largest)))))
        size = unit * float(np.sqrt(share / outline.area()))
        colour = shared if one_colour else _contrasting(rng, ground, float(rng.choice([0.0, 0.5, 0.9])))
        kinds.append(
            Kind(
                name=family,
                outline=outline,
                size=size,
                colour=colour,
                gloss=float(rng.uniform(0.05, 0.5)),
                relief=float(rng.uniform(2, 7)) * unit / 500,
                bevel=float(rng.uniform(0.08, 0.4)),
                grain=float(rng.uniform(0.01, 0.05)),
            )
        )
    for one, two in itertools.combinations(kinds, 2):
        colours = max(abs(first - second) for first, second in zip(one.colour, two.colour, strict=True))
        if colours < _PLAIN_CONTRAST and likeness(one.outline, two.outline) > _MOST_LIKENESS:
            raise ValueError(f"{one.name} and {two.name} look alike")
    return tuple(kinds)


def _contrasting(rng: np.random.Generator, ground: Rgb, saturation: float) -> Rgb:
    for _ in range(100):
        colour = draw_colour(rng, float(rng.uniform(0.06, 0.75)), saturation)
        if max(abs(one - other) for one, other in zip(colour, ground, strict=True)) >= _PLAIN_CONTRAST:
            return colour
    return (0.7, 0.7, 0.7) if sum(ground) < 1.2 else (0.08, 0.08, 0.08)


def draw_colour(rng: np.random.Generator, brightness: float, saturation: float) -> Rgb:
    """Draws a colour; saturation 0 is grey."""
    weights = rng.uniform(0, 1, 3)
    weights = weights / weights.max()
    red, green, blue = brightness * (1 - saturation + saturation * weights)
    return float(red), float(green), float(blue)
