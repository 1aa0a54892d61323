"""What an image shows, class by class: a description of its objects with a canonical text (TMUAD, algorithm 1)."""

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
"""Words for the nine cells of the image, row by row."""

_LINES: Final = (1 / 3, 2 / 3)
_OBJECTS: Final = re.compile(r"(?P<count>\d+) (?P<name>.+): (?P<positions>.+); (?P<size>\d+\.\d\d) %")
_NAME: Final = re.compile(r"[^\n:;]+")

Position = tuple[str, ...]
"""The cells that an object may be said to be in: one, or two to four for one near a line between them."""


@dataclass(frozen=True)
class ClassDescription:
    """The objects of one class in one image.

    Attributes:
        name: The class.
        count: Number of objects, at least 1.
        positions: One for each object, sorted.
        size: Share of the image that they cover together, in per cent, to two digits.
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
        classes: One entry a class that is there, sorted by name.
    """

    classes: tuple[ClassDescription, ...]

    def __str__(self) -> str:
        """The canonical text: a line a class; empty where there is no object."""
        return "\n".join(map(str, self.classes))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a canonical text.

        Raises:
            ValueError: The text is not canonical.
        """
        found = cls(tuple(map(_parse_line, text.split("\n")))) if text else cls(())
        if str(found) != text or [one.name for one in found.classes] != sorted({one.name for one in found.classes}):
            raise ValueError(f"{text!r} is not the canonical text of a description")
        return found


def check_class_name(name: str) -> str:
    """Gives a name back that a description can hold.

    Raises:
        ValueError: It is empty, or has a colon, a semicolon or a line break in it.
    """
    if not name.strip() or _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no name of a class; write words without colon, semicolon and line break")
    return name


def check_class_names(names: Sequence[str]) -> None:
    """Refuses names that a description cannot hold or cannot tell apart.

    Raises:
        ValueError: One cannot be held, or two are the same.
    """
    for name in names:
        check_class_name(name)
    if len(set(names)) < len(names):
        raise ValueError(f"two classes would have the same name: {', '.join(sorted(names))}")


def describe_segments(
    segments: Segments, softness: float, known: Mapping[str, tuple[Position, ...]] | None = None
) -> Description:
    """Describes named segments (TMUAD, algorithm 1, with positions by the 3 x 3 grid where they are not known).

    Args:
        segments: Segments with names.
        softness: Share of the image's side within which a centre counts as being on both sides of a line, in 0..1/6.
        known: Positions by class, one for each of its objects, where they are known otherwise than by the grid.

    Returns:
        Per class its count, the cells of the centres of the boxes, and the share that the union of its masks covers.
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
    """The cells of a point; both sides of a line that it is near to.

    Args:
        row: In 0..1.
        column: In 0..1.
        softness: How near is near, as a share of the side.
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
        raise ValueError(f"{line!r} does not say one place for each object")
    return ClassDescription(match["name"], int(match["count"]), positions, float(match["size"]))
