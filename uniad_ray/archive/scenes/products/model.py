"""What a product and its images consist of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

import numpy as np

from uniad_ray.archive.scenes.products.shapes import Outline
from uniad_ray.archive.scenes.shapes import Plane

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

    def enlarged(self, factor: float) -> Part:
        """Returns the part in an image with `factor` times as many pixels a side."""
        return replace(
            self,
            x=self.x * factor,
            y=self.y * factor,
            scale=self.scale * factor,
            path=tuple((x * factor, y * factor) for x, y in self.path),
            radius=self.radius * factor,
        )


@dataclass(frozen=True, slots=True)
class View:
    """Camera and light of one image; they vary a little from image to image.

    Attributes:
        shift: Offset of the content, pixels right and down.
        turn: Turn of the content about the middle of the image, degrees.
        zoom: Its magnification.
        exposure: Factor of the brightness.
        tint: Factor of each channel.
        azimuth: Direction of the light, degrees.
        noise: Deviation of the sensor noise, grey levels.
    """

    shift: tuple[float, float]
    turn: float
    zoom: float
    exposure: float
    tint: Rgb
    azimuth: float
    noise: float

    def seen(self, part: Part, shape: tuple[int, int]) -> Part:
        """Returns a part as the camera sees it, in an image of a height and width."""
        x, y = self._seen_at(part.x, part.y, shape)
        return replace(
            part,
            x=x,
            y=y,
            angle=part.angle + self.turn,
            scale=part.scale * self.zoom,
            path=tuple(self._seen_at(*point, shape) for point in part.path),
            radius=part.radius * self.zoom,
        )

    def _seen_at(self, x: float, y: float, shape: tuple[int, int]) -> tuple[float, float]:
        cos, sin = self.zoom * math.cos(math.radians(self.turn)), self.zoom * math.sin(math.radians(self.turn))
        across, down = x - shape[1] / 2, y - shape[0] / 2
        return (
            shape[1] / 2 + self.shift[0] + across * cos - down * sin,
            shape[0] / 2 + self.shift[1] + across * sin + down * cos,
        )

    def origins(self, shape: tuple[int, int], resolution: float = 1.0) -> tuple[Plane, Plane]:
        """Returns the column and row that each pixel shows, each float32 [h, w]; the inverse of `seen`.

        Args:
            shape: Height and width, in pixels of the product's own size.
            resolution: Pixels of the image per pixel of that size.
        """
        height, width = (round(side * resolution) for side in shape)
        pixel = np.float32(1 / resolution)
        rows = pixel * np.arange(height, dtype=np.float32)[:, None]
        columns = pixel * np.arange(width, dtype=np.float32)[None, :]
        rows += np.float32(0.5 / resolution - shape[0] / 2 - self.shift[1])
        columns += np.float32(0.5 / resolution - shape[1] / 2 - self.shift[0])
        cos = np.float32(math.cos(math.radians(self.turn)) / self.zoom)
        sin = np.float32(math.sin(math.radians(self.turn)) / self.zoom)
        return (
            np.asarray(columns * cos + rows * sin + np.float32(shape[1] / 2), np.float32),
            np.asarray(rows * cos - columns * sin + np.float32(shape[0] / 2), np.float32),
        )
