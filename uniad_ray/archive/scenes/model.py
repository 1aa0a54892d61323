"""What a synthetic tray holds and how it is photographed: the ground truth from which an image is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

Cell = tuple[int, int]
"""Row and column of a cell, counted from 0 at the top left."""


class PartKind(StrEnum):
    """The kinds of part that lie in a tray."""

    BOLT = "bolt"
    NUT = "nut"
    WASHER = "washer"
    PIN = "pin"
    BLOCK = "block"


class Colour(StrEnum):
    """The colours of parts: two metals and two plastics."""

    STEEL = "steel"
    BRASS = "brass"
    RED = "red"
    BLUE = "blue"


class LogicalDefect(StrEnum):
    """The ways in which a tray of sound parts breaks a rule."""

    MISSING = "missing_part"
    EXTRA = "extra_part"
    SWAPPED = "swapped_parts"
    WRONG_PAIR = "wrong_pair"
    LEFT_RIGHT = "left_right_disagree"
    WRONG_CELL = "wrong_cell"


class StructuralDefect(StrEnum):
    """The ways in which a surface is damaged."""

    SCRATCH = "scratch"
    DENT = "dent"
    STAIN = "stain"
    CRACK = "crack"
    DEFORMED = "deformed_part"


@dataclass(frozen=True, slots=True)
class Part:
    """One part in a cell.

    Attributes:
        kind: What it is.
        colour: Its colour.
        cell: The cell it lies in.
        angle: Counter-clockwise turn in degrees.
        shift: Offset from the middle of the cell, right and down, in reference pixels (a 256-pixel image).
        scale: Size relative to the nominal one.
    """

    kind: PartKind
    colour: Colour
    cell: Cell
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Damage:
    """Damage to the part that lies in a cell, or to the cell's floor where it is empty.

    Attributes:
        kind: What was done.
        cell: Where.
        seed: Seed of the damage's exact shape.
    """

    kind: StructuralDefect
    cell: Cell
    seed: int


@dataclass(frozen=True, slots=True)
class View:
    """How a tray is placed, lit and photographed.

    Attributes:
        shift: Offset of the tray, right and down, in reference pixels (a 256-pixel image).
        turn: Counter-clockwise turn of the tray in degrees.
        zoom: Magnification.
        light_azimuth: Direction the light comes from, degrees counter-clockwise from the right.
        exposure: Factor on all brightness.
        tint: Factors on red, green and blue.
        vignette: Loss of brightness in the corners, as a share.
        noise: Deviation of the sensor noise in grey levels of 255.
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
    """A tray, all that is known of it.

    Attributes:
        parts: The parts, in no meaningful order.
        view: The camera and the light.
        damage: Damage to a surface, or None.
        logical: The way a rule is broken, or None.
        suspects: Indices of the parts of which any one (or pair) may be the wrong one; empty unless `logical` is set.
        vacancies: The empty cells where a missing part could have lain; empty unless a part is missing.
    """

    parts: tuple[Part, ...]
    view: View = field(default_factory=View)
    damage: Damage | None = None
    logical: LogicalDefect | None = None
    suspects: tuple[int, ...] = ()
    vacancies: tuple[Cell, ...] = ()
