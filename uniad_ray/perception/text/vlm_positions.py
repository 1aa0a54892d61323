"""Object positions from a vision-language model: the prompt and the parser of its answer (TMUAD, algorithm 1)."""

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
"""The prompt (our own; the paper does not print one)."""


def positions_prompt(names: Collection[str]) -> str:
    """The prompt for an image with objects of the given classes."""
    return POSITIONS_PROMPT.format(names=", ".join(sorted(names)), cells=", ".join(CELLS))


def read_positions(answer: str, counts: Mapping[str, int]) -> dict[str, tuple[Position, ...]]:
    """Parses the model's answer, strictly.

    Args:
        answer: The model's answer.
        counts: Number of objects by class.

    Returns:
        Positions by class. A class is omitted if its line is missing, duplicated, names an unknown cell, or has another
        number of positions than objects.
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
    """The cells named in a position, in grid order; None if one is not a cell."""
    named = {cell.strip().lower() for cell in place.split(" or ")}
    return tuple(cell for cell in CELLS if cell in named) if named <= set(CELLS) else None
