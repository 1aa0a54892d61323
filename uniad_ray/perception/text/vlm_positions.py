"""Positions of objects by a vision-language model: what it is asked, and how its answer is read (TMUAD, alg. 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from uniad_ray.perception.text.descriptions import CELLS, Position

POSITIONS_PROMPT: Final = """\
The image shows: {names}.
Divide the image into a 3 x 3 grid. Its cells are called {cells}.
For each class say where its objects are, one line a class, one cell an object, like this:
class: top left, middle centre
If an object lies between cells, join them by "or", like this:
class: top left or top centre
Write nothing else."""
"""What the model is asked (ours; the paper does not print its own)."""


def positions_prompt(names: Collection[str]) -> str:
    """What the model is asked of an image with objects of some classes."""
    return POSITIONS_PROMPT.format(names=", ".join(sorted(names)), cells=", ".join(CELLS))


def read_positions(answer: str, counts: Mapping[str, int]) -> dict[str, tuple[Position, ...]]:
    """Reads the model's answer, strictly.

    Args:
        answer: What it wrote.
        counts: The number of objects by class.

    Returns:
        Positions by class. A class is left out whose line is missing, comes twice, names another cell than those of the
        grid, or has not as many places as there are objects.
    """
    lines = [line.strip().partition(":") for line in answer.splitlines()]
    repeated = Counter(name.strip() for name, _, _ in lines)
    found = {}
    for name, _, places in lines:
        positions = [_position(place) for place in places.split(",")]
        known = tuple(position for position in positions if position)
        if len(known) == len(positions) == counts.get(name.strip()) and repeated[name.strip()] == 1:
            found[name.strip()] = known
    return found


def _position(place: str) -> Position | None:
    """The cells that a place names, in the order of the grid; None where one is no cell."""
    named = {cell.strip().lower() for cell in place.split(" or ")}
    return tuple(cell for cell in CELLS if cell in named) if named <= set(CELLS) else None
