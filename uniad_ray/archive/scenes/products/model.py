"""What a product and its images consist of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from uniad_ray.archive.scenes.products.shapes import Outline

Rgb: TypeAlias = tuple[float, float, float]
"""Colour before lighting, each channel in [0, 1]."""


class Ground(StrEnum):
    """What the parts lie on."""

    PLAIN = "plain"
    CLOTH = "cloth"
    WOOD = "wood"
    BRUSHED = "brushed"
    CARD = "card"
    BELT = "belt"


class Break(StrEnum):
    """A broken rule: the logical anomalies."""

    MISSING = "missing"
    EXTRA = "extra"
    WRONG_KIND = "wrong_kind"
    WRONG_PLACE = "wrong_place"
    TURNED = "turned"
    SHIFTED = "shifted"
    AMOUNT = "amount"
    DISAGREEMENT = "disagreement"
    RATIO = "ratio"
    CONNECTION = "connection"


class Flaw(StrEnum):
    """A damaged surface: the structural anomalies."""

    SCRATCH = "scratch"
    DENT = "dent"
    STAIN = "stain"
    CRACK = "crack"
    SPECK = "speck"
    CHIP = "chip"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of part.

    Attributes:
        name: Its name in the rules.
        outline: Its shape.
        size: Pixels of one unit of the outline.
        colour: Its colour.
        gloss: Strength of its highlight, 0 to 1.
        relief: Height of its surface, pixels; 0 for print.
        bevel: Width of its bevelled edge, in units of the outline.
        grain: Strength of the noise on its surface.
    """

    name: str
    outline: Outline
    size: float
    colour: Rgb
    gloss: float = 0.2
    relief: float = 4.0
    bevel: float = 0.25
    grain: float = 0.02


@dataclass(frozen=True, slots=True)
class Part:
    """A part in an image.

    Attributes:
        kind: Index of its kind; -1 for a wire.
        x: Column of its middle, pixels.
        y: Row of its middle, pixels.
        angle: Turn, degrees.
        scale: Size relative to its kind.
        stretch: Length relative to its kind.
        colour: Replaces the colour of its kind.
        path: Points of a wire, pixels; its middle is not used.
        radius: Half the width of a wire, pixels.
    """

    kind: int
    x: float
    y: float
    angle: float = 0.0
    scale: float = 1.0
    stretch: float = 1.0
    colour: Rgb | None = None
    path: tuple[tuple[float, float], ...] = ()
    radius: float = 0.0

    def moved(self, dx: float, dy: float) -> Part:
        """Returns the part shifted by a number of pixels."""
        return replace(self, x=self.x + dx, y=self.y + dy, path=tuple((x + dx, y + dy) for x, y in self.path))


@dataclass(frozen=True, slots=True)
class View:
    """Camera and light of one image; they vary a little from image to image.

    Attributes:
        shift: Offset of the content, pixels right and down.
        exposure: Factor of the brightness.
        tint: Factor of each channel.
        azimuth: Direction of the light, degrees.
        noise: Deviation of the sensor noise, grey levels.
    """

    shift: tuple[float, float]
    exposure: float
    tint: Rgb
    azimuth: float
    noise: float
