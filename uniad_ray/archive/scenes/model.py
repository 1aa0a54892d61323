"""The contents and the view of a synthetic tray: the ground truth that an image is drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

Cell = tuple[int, int]
"""Row and column of a cell, from 0 at the top left."""


class PartKind(StrEnum):
    """Kinds of parts in a tray."""

    BOLT = "bolt"
    NUT = "nut"
    WASHER = "washer"
    PIN = "pin"
    BLOCK = "block"


class Colour(StrEnum):
    """Colours of parts: two metals and two plastics."""

    STEEL = "steel"
    BRASS = "brass"
    RED = "red"
    BLUE = "blue"


class LogicalDefect(StrEnum):
    """Ways in which a tray of sound parts breaks a rule."""

    MISSING = "missing_part"
    EXTRA = "extra_part"
    SWAPPED = "swapped_parts"
    WRONG_PAIR = "wrong_pair"
    LEFT_RIGHT = "left_right_disagree"
    WRONG_CELL = "wrong_cell"


class StructuralDefect(StrEnum):
    """Ways in which a surface is damaged."""

    SCRATCH = "scratch"
    DENT = "dent"
    STAIN = "stain"
    CRACK = "crack"
    DEFORMED = "deformed_part"


@dataclass(frozen=True, slots=True)
class Part:
    """One part in a cell.

    Attributes:
        kind: Its kind.
        colour: Its colour.
        cell: Its cell.
        angle: Counter-clockwise rotation in degrees.
        shift: Offset from the middle of the cell, right and down, in reference pixels (a 256-pixel image).
        scale: Size relative to the nominal size.
    """

    kind: PartKind
    colour: Colour
    cell: Cell
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Damage:
    """Damage to the part in a cell, or to the floor of an empty cell.

    Attributes:
        kind: Kind of the damage.
        cell: The damaged cell.
        seed: Seed of the exact shape.
    """

    kind: StructuralDefect
    cell: Cell
    seed: int


@dataclass(frozen=True, slots=True)
class View:
    """Position, light and camera of a tray.

    Attributes:
        shift: Offset of the tray, right and down, in reference pixels (a 256-pixel image).
        turn: Counter-clockwise rotation of the tray in degrees.
        zoom: Magnification.
        light_azimuth: Direction of the light source, degrees counter-clockwise from the right.
        exposure: Factor on all brightness.
        tint: Factors on red, green and blue.
        vignette: Loss of brightness in the corners, as a fraction.
        noise: Standard deviation of the sensor noise, in grey levels of 255.
        texture_seed: Seed of the felt, the brushing and the noise.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    zoom: float = 1.0
    light_azimuth: float = 125.0
    exposure: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    vignette: float = 0.1
    noise: float = 2.0
    texture_seed: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """A tray with its complete ground truth.

    Attributes:
        parts: The parts, in arbitrary order.
        view: The camera and the light.
        damage: Damage to a surface, or None.
        logical: The broken rule, or None.
        suspects: Indices of the parts (or pairs) that may be the wrong one; empty unless `logical` is set.
        vacancies: Empty cells that the missing part may belong to; empty unless a part is missing.
    """

    parts: tuple[Part, ...]
    view: View = field(default_factory=View)
    damage: Damage | None = None
    logical: LogicalDefect | None = None
    suspects: tuple[int, ...] = ()
    vacancies: tuple[Cell, ...] = ()
