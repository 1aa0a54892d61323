"""Layouts whose parts depend on each other: a container with a level, wires between terminals, printed places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from uniad_ray.archive.scenes.products.layout import Arrangement, Box, other_index
from uniad_ray.archive.scenes.products.model import Break, Kind, Part, Rgb
from uniad_ray.archive.scenes.products.shapes import Outline

_BAR = Outline("bar", (1.0, 0.15, 0.0, 0.0, 0.0, 0.0))
_BAR_LENGTH, _BAR_WIDTH = 2.6, 1.2


def _slab(name: str, width: float, colour: Rgb, **look: float) -> Kind:
    """A rectangle of some width; its length is set by the stretch of a part."""
    return Kind(name, _BAR, width / _BAR_WIDTH, colour, **look)


def _slab_part(kind: int, kinds: tuple[Kind, ...], box: Box, colour: Rgb | None = None) -> Part:
    """An upright slab that fills the height of a box, at its middle."""
    left, top, right, bottom = box
    stretch = (bottom - top) / (_BAR_LENGTH * kinds[kind].size)
    return Part(kind, (left + right) / 2, (top + bottom) / 2, 90.0, stretch=stretch, colour=colour)


class Container:
    """A container with a liquid up to a level, and a label whose colour agrees with the liquid."""

    fixtures: tuple[Part, ...]

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the container, its level and the pairs of colours."""
        height, width = shape
        body = 0.75 * height
        self.half = float(rng.uniform(0.3, 0.45)) * body / 2
        self.box: Box = (width / 2 - self.half, 0.15 * height, width / 2 + self.half, 0.15 * height + body)
        self.level = float(rng.uniform(0.5, 0.8))
        hues = rng.permutation(6)[:3]
        self.colours = [_hue(int(hue)) for hue in hues]
        label = float(rng.uniform(0.22, 0.3)) * body
        self.kinds: tuple[Kind, ...] = (
            _slab("liquid", 1.84 * self.half, self.colours[0], gloss=0.3, relief=1.0, bevel=0.1),
            _slab("label", 1.5 * self.half, self.colours[0], gloss=0.05, relief=0.8, bevel=0.04),
            _slab("cap", 1.0 * self.half, kinds[0].colour, gloss=0.3, relief=5.0, bevel=0.2),
        )
        self.label_box: Box = (
            self.box[0] + 0.25 * self.half,
            self.box[3] - 0.42 * body,
            self.box[2] - 0.25 * self.half,
            self.box[3] - 0.42 * body + label,
        )
        self.cap_box: Box = (
            width / 2 - self.half / 2,
            self.box[1] - 0.08 * height,
            width / 2 + self.half / 2,
            self.box[1] + 0.02 * height,
        )
        glass = float(rng.uniform(0.55, 0.8))
        self.fixture_kinds: tuple[Kind, ...] = (
            _slab("glass", 2 * self.half, (glass, glass, glass), gloss=0.5, relief=3.0, bevel=0.15),
        )
        self.fixtures = (_slab_part(0, self.fixture_kinds, self.box),)
        self.rules: tuple[str, ...] = (
            f"The container is filled to {self.level:.0%} of its height, within 2 %.",
            "The label has the colour of the liquid.",
            "The label and the cap are in their places.",
        )
        self.breaks: tuple[Break, ...] = (Break.AMOUNT, Break.DISAGREEMENT, Break.MISSING, Break.SHIFTED)

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws a container of one of the three colours."""
        colour = int(rng.integers(3))
        return Arrangement(self._parts(self.level + float(rng.uniform(-0.02, 0.02)), colour, colour, rng))

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws another level, a label of another colour, none, or a shifted one."""
        colour = int(rng.integers(3))
        level, label = self.level + float(rng.uniform(-0.02, 0.02)), colour
        if which is Break.AMOUNT:
            level = self.level + float(rng.uniform(0.07, 0.15)) * (1 if rng.random() < 0.5 else -1)
        if which is Break.DISAGREEMENT:
            label = other_index(rng, 3, colour)
        parts = self._parts(level, colour, label, rng)
        if which is Break.MISSING:
            del parts[1]
            return Arrangement(parts, places=[self.label_box])
        if which is Break.SHIFTED:
            away = float(rng.uniform(0.12, 0.2)) * (self.box[3] - self.box[1])
            parts[1] = parts[1].moved(0.0, away if rng.random() < 0.5 else -away)
        return Arrangement(parts, [0] if which is Break.AMOUNT else [0, 1] if which is Break.DISAGREEMENT else [1])

    def _parts(self, level: float, liquid: int, label: int, rng: np.random.Generator) -> list[Part]:
        left, top, right, bottom = self.box
        inset = 0.08 * self.half
        surface = bottom - inset - level * (bottom - top - 2 * inset)
        filled = (left + inset, surface, right - inset, bottom - inset)
        return [
            _slab_part(0, self.kinds, filled, self.colours[liquid]),
            _slab_part(1, self.kinds, self.label_box, _pale(self.colours[label])).moved(float(rng.normal(0, 1)), 0.0),
            _slab_part(2, self.kinds, self.cap_box),
        ]


class Wires:
    """Wires between two columns of terminals; each connects the same two terminals in every image."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the terminals, the connections and the colours of the wires."""
        self.height, self.width = shape
        self.number = int(rng.integers(3, 7))
        self.radius = max(2.5, 0.011 * float(np.sqrt(shape[0] * shape[1])))
        pitch = self.height / (self.number + 1)
        size = min(kinds[0].size, 0.3 * pitch)
        self.fixture_kinds: tuple[Kind, ...] = (replace(kinds[0], size=size),)
        self.ends = [
            [(float(x), float((row + 1) * pitch)) for row in range(self.number)]
            for x in (0.12 * self.width, 0.88 * self.width)
        ]
        self.fixtures: tuple[Part, ...] = tuple(Part(0, x, y) for side in self.ends for x, y in side)
        self.kinds: tuple[Kind, ...] = ()
        self.goes_to = [int(one) for one in rng.permutation(self.number)]
        one_colour = rng.random() < 0.5
        hues = [int(hue) for hue in rng.integers(0, 6, self.number)]
        self.colours = [_hue(hues[0] if one_colour else hue) for hue in hues]
        self.rules: tuple[str, ...] = tuple(
            f"A wire connects terminal {index + 1} on the left with terminal {other + 1} on the right."
            for index, other in enumerate(self.goes_to)
        )
        self.breaks: tuple[Break, ...] = (Break.MISSING, Break.CONNECTION, Break.EXTRA)

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws every wire, bent at random."""
        return Arrangement([self._wire(rng, index, other) for index, other in enumerate(self.goes_to)])

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws a wire too few or too many, or two wires with exchanged ends."""
        index = int(rng.integers(self.number))
        other = other_index(rng, self.number, index)
        goes_to = list(self.goes_to)
        if which is Break.CONNECTION:
            goes_to[index], goes_to[other] = goes_to[other], goes_to[index]
        parts = [self._wire(rng, left, right) for left, right in enumerate(goes_to)]
        if which is Break.CONNECTION:
            return Arrangement(parts, [index, other])
        if which is Break.EXTRA:
            return Arrangement([*parts, self._wire(rng, index, goes_to[other])], [len(parts)])
        lost = parts.pop(index)
        xs, ys = zip(*lost.path, strict=True)
        return Arrangement(parts, places=[(min(xs), min(ys), max(xs), max(ys) + 2 * self.radius)])

    def _wire(self, rng: np.random.Generator, left: int, right: int) -> Part:
        (x1, y1), (x2, y2) = self.ends[0][left], self.ends[1][right]
        bend = rng.normal(0, 0.09 * self.height, 2)
        span = x2 - x1
        t = np.linspace(0, 1, 24)[:, None]
        control = np.array(
            [(x1, y1), (x1 + 0.4 * span, y1 + bend[0]), (x1 + 0.6 * span, y2 + bend[1]), (x2, y2)], dtype=float
        )
        path = (
            (1 - t) ** 3 * control[0]
            + 3 * (1 - t) ** 2 * t * control[1]
            + 3 * (1 - t) * t**2 * control[2]
            + t**3 * control[3]
        )
        points = tuple((float(x), float(y)) for x, y in path)
        return Part(-1, (x1 + x2) / 2, (y1 + y2) / 2, colour=self.colours[left], path=points)


class Printed:
    """A print with a symbol in two places that agree, and marks that vary freely."""

    fixture_kinds: tuple[Kind, ...] = ()
    fixtures: tuple[Part, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the two places, and the line of marks."""
        height, width = shape
        unit = float(np.sqrt(height * width))
        size = float(rng.uniform(0.06, 0.1)) * unit
        mark = Kind("mark", Outline("disc", (0.0,) * 6), 0.012 * unit, kinds[0].colour, gloss=0.0, relief=0.0)
        self.symbols = len(kinds)
        self.kinds: tuple[Kind, ...] = (*(replace(kind, size=size, relief=0.0, gloss=0.05) for kind in kinds), mark)
        across = rng.random() < 0.5
        first, second = ((0.25, 0.4), (0.75, 0.4)) if across else ((0.5, 0.22), (0.5, 0.62))
        self.places = [(width * x, height * y) for x, y in (first, second)]
        self.line_y = 0.88 * height
        self.line_x = np.linspace(0.15 * width, 0.85 * width, 16)
        self.rules: tuple[str, ...] = ("The two symbols are the same.", "Each symbol is there once.")
        self.breaks: tuple[Break, ...] = (Break.DISAGREEMENT, Break.MISSING)

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws the same symbol in both places."""
        symbol = int(rng.integers(self.symbols))
        return Arrangement(self._parts(rng, (symbol, symbol)))

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws two different symbols, or one only."""
        symbol = int(rng.integers(self.symbols))
        if which is Break.DISAGREEMENT:
            return Arrangement(self._parts(rng, (symbol, other_index(rng, self.symbols, symbol))), [0, 1])
        parts = self._parts(rng, (symbol, symbol))
        lost = int(rng.integers(2))
        del parts[lost]
        x, y = self.places[lost]
        reach = 1.3 * self.kinds[symbol].size
        return Arrangement(parts, places=[(x - reach, y - reach, x + reach, y + reach)])

    def _parts(self, rng: np.random.Generator, symbols: tuple[int, int]) -> list[Part]:
        parts = [Part(symbol, x, y, 0.0) for symbol, (x, y) in zip(symbols, self.places, strict=True)]
        marks = [Part(self.symbols, float(x), self.line_y) for x in self.line_x[rng.random(16) < 0.5]]
        return parts + marks


def _pale(colour: Rgb) -> Rgb:
    """A lighter shade, so that a label shows on a liquid of its colour."""
    red, green, blue = (0.5 + 0.45 * one for one in colour)
    return red, green, blue


def _hue(index: int) -> Rgb:
    return (
        (0.55, 0.08, 0.07),
        (0.08, 0.2, 0.55),
        (0.1, 0.4, 0.14),
        (0.62, 0.42, 0.06),
        (0.45, 0.12, 0.4),
        (0.05, 0.4, 0.45),
    )[index]
