"""Structured descriptions of the objects in an image, with a canonical text (TMUAD, algorithm 1)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from uniad_ray.perception.segments import Segments

ROWS: Final = ("top", "middle", "bottom")
COLUMNS: Final = ("left", "centre", "right")
CELLS: Final = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
"""Names of the nine cells of the image, row by row."""

_LINES: Final = (1 / 3, 2 / 3)
_OBJECTS: Final = re.compile(r"(?P<count>\d+) (?P<name>.+): (?P<positions>.+); (?P<size>\d+\.\d\d) %")
_NAME: Final = re.compile(r"[^\n:;]+")

Position = tuple[str, ...]
"""The possible cells of an object: one, or two to four if it is near a grid line."""


@dataclass(frozen=True)
class ClassDescription:
    """The objects of one class in one image.

    Attributes:
        name: The class.
        count: Number of objects, at least 1.
        positions: One per object, sorted.
        size: Area covered by all objects together, in per cent of the image, to two decimals.
    """

    name: str
    count: int
    positions: tuple[Position, ...]
    size: float

    def __str__(self) -> str:
        """The canonical text, such as `2 bolt: top left, top centre or top right; 3.10 %`."""
        places = ", ".join(" or ".join(position) for position in self.positions)
        return f"{self.count} {self.name}: {places}; {self.size:.2f} %"


@dataclass(frozen=True)
class Description:
    """The objects of one image by class.

    Attributes:
        classes: One entry per class in the image, sorted by name.
    """

    classes: tuple[ClassDescription, ...]

    def __str__(self) -> str:
        """The canonical text: one line per class; empty if there are no objects."""
        return "\n".join(map(str, self.classes))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a canonical text.

        Raises:
            ValueError: The text is not canonical.
        """
        found = cls(tuple(map(_parse_line, text.split("\n")))) if text else cls(())
        if str(found) != text or [one.name for one in found.classes] != sorted({one.name for one in found.classes}):
            raise ValueError(f"{text!r} is not the canonical text of a description")
        return found


def check_class_name(name: str) -> str:
    """Validates a class name and returns it.

    Raises:
        ValueError: The name is empty, or contains a colon, a semicolon or a line break.
    """
    if not name.strip() or _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a class name; use words without colons, semicolons and line breaks")
    return name


def check_class_names(names: Sequence[str]) -> None:
    """Rejects invalid and duplicate class names.

    Raises:
        ValueError: A name is invalid, or two are the same.
    """
    for name in names:
        check_class_name(name)
    if len(set(names)) < len(names):
        raise ValueError(f"two classes have the same name, rename one: {', '.join(sorted(names))}")


def describe_segments(
    segments: Segments, softness: float, known: Mapping[str, tuple[Position, ...]] | None = None
) -> Description:
    """Describes named segments (TMUAD, algorithm 1); positions not in `known` come from the 3 x 3 grid.

    Args:
        segments: Segments with names.
        softness: Distance to a grid line within which a centre counts for both sides, as a fraction of the image's
            side, in 0..1/6.
        known: Positions by class from another source than the grid, one per object.

    Returns:
        For each class: its count, the cells of the centres of the boxes, and the area of the union of its masks.
    """
    centres = (segments.boxes[:, :2] + segments.boxes[:, 2:]) / 2
    positions = [soft_position(float(row), float(column), softness) for row, column in centres]
    masks = segments.masks()
    classes = []
    for name in sorted(set(segments.names)):
        members = np.flatnonzero(np.array(segments.names) == name)
        size = float(masks[members].any(axis=0).mean()) * 100
        places = (known or {}).get(name) or [positions[member] for member in members]
        classes.append(ClassDescription(name, len(members), tuple(sorted(places, key=_order)), round(size, 2)))
    return Description(tuple(classes))


def soft_position(row: float, column: float, softness: float) -> Position:
    """The cells of a point; near a grid line, the cells on both sides.

    Args:
        row: Vertical position, in 0..1.
        column: Horizontal position, in 0..1.
        softness: Distance to a grid line that counts as near, as a fraction of the image's side.
    """
    return tuple(
        f"{ROWS[down]} {COLUMNS[across]}" for down in _thirds(row, softness) for across in _thirds(column, softness)
    )


def _thirds(place: float, softness: float) -> Sequence[int]:
    return sorted({int(np.searchsorted(_LINES, place + shift)) for shift in (-softness, softness)})


def _order(position: Position) -> tuple[int, ...]:
    return tuple(CELLS.index(cell) for cell in position)


def _parse_line(line: str) -> ClassDescription:
    match = _OBJECTS.fullmatch(line)
    if match is None:
        raise ValueError(f"{line!r} does not describe the objects of a class")
    positions = tuple(tuple(place.split(" or ")) for place in match["positions"].split(", "))
    cells = {cell for position in positions for cell in position}
    if not cells <= set(CELLS) or len(positions) != int(match["count"]):
        raise ValueError(f"{line!r} does not give one position per object")
    return ClassDescription(match["name"], int(match["count"]), positions, float(match["size"]))
