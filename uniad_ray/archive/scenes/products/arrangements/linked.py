"""Layouts whose parts depend on each other: a container with a level, wires between terminals, printed places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from uniad_ray.archive.scenes.products.arrangements.base import (
    Arrangement,
    Box,
    box_around,
    digit_kinds,
    other_index,
    serial_number,
)
from uniad_ray.archive.scenes.products.model import Break, Kind, Part, Rgb
from uniad_ray.archive.scenes.products.shapes import Outline

_BAR = Outline("bar", (1.0, 0.15, 0.0, 0.0, 0.0, 0.0))
_BAR_LENGTH, _BAR_WIDTH = 2.6, 1.2
_HUES: tuple[tuple[str, Rgb], ...] = (
    ("red", (0.55, 0.08, 0.07)),
    ("blue", (0.08, 0.2, 0.55)),
    ("green", (0.1, 0.4, 0.14)),
    ("yellow", (0.62, 0.42, 0.06)),
    ("purple", (0.45, 0.12, 0.4)),
    ("teal", (0.05, 0.4, 0.45)),
)
"""Names and values of the colours of liquids and wires."""
_DARK: Rgb = (0.03, 0.03, 0.04)
_PAPER: Rgb = (0.75, 0.74, 0.7)


def _slab(name: str, width: float, colour: Rgb, **look: float) -> Kind:
    """A rectangle of some width; its length is set by the stretch of a part."""
    return Kind(name, _BAR, width / _BAR_WIDTH, colour, **look)


def _slab_part(kind: int, kinds: tuple[Kind, ...], box: Box, colour: Rgb | None = None) -> Part:
    """An upright slab that fills the height of a box, at its middle."""
    left, top, right, bottom = box
    stretch = (bottom - top) / (_BAR_LENGTH * kinds[kind].size)
    return Part(kind, (left + right) / 2, (top + bottom) / 2, 90.0, stretch=stretch, colour=colour)


class Container:
    """A container with a liquid and a label that agrees with it; the batch number and some levels vary freely."""

    fixtures: tuple[Part, ...]

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the container, its level, and the pairs of liquids and labels."""
        height, width = shape
        body = float(rng.uniform(0.6, 0.75)) * height
        top = height - body - 0.08 * height
        self.half = min(float(rng.uniform(0.3, 0.75)) * body, 0.86 * width) / 2
        middle = width / 2
        self.box: Box = (middle - self.half, top, middle + self.half, top + body)
        self.level = None if rng.random() < 0.25 else float(rng.uniform(0.62, 0.8))
        hues = [int(hue) for hue in rng.permutation(6)[:3]]
        self.colours = [_HUES[hue][1] for hue in hues]
        # A label shows a mark of the colour of its liquid, or a dark symbol that stands for it.
        self.has_symbols = bool(rng.random() < 0.5)
        self.liquids = min(3, len(kinds)) if self.has_symbols else 3
        marks = kinds[: self.liquids] if self.has_symbols else (kinds[0],) * self.liquids
        label = float(rng.uniform(0.24, 0.3)) * body
        self.label_box: Box = (
            self.box[0] + 0.25 * self.half,
            self.box[3] - 0.44 * body,
            self.box[2] - 0.25 * self.half,
            self.box[3] - 0.44 * body + label,
        )
        cap = float(rng.uniform(0.4, 0.7)) * self.half
        self.cap_box: Box = (middle - cap, top - 0.07 * height, middle + cap, top + 0.02 * height)
        symbol = 0.36 * min(label * 0.75, self.label_box[2] - self.label_box[0])
        self.kinds: tuple[Kind, ...] = (
            _slab("liquid", 1.84 * self.half, self.colours[0], gloss=0.3, relief=1.0, bevel=0.1),
            _slab("label", 1.5 * self.half, _PAPER, gloss=0.05, relief=0.8, bevel=0.04),
            _slab("cap", 2 * cap, kinds[0].colour, gloss=0.3, relief=5.0, bevel=0.2),
            *(
                replace(
                    one,
                    name=one.name if self.has_symbols else f"{_HUES[hue][0]} mark",
                    size=symbol / one.outline.radius(),
                    colour=_DARK if self.has_symbols else _HUES[hue][1],
                    relief=0.0,
                    gloss=0.05,
                )
                for one, hue in zip(marks, hues, strict=False)
            ),
        )
        glass = float(rng.uniform(0.55, 0.8))
        self.fixture_kinds: tuple[Kind, ...] = (
            _slab("glass", 2 * self.half, (glass, glass, glass), gloss=0.5, relief=3.0, bevel=0.15),
        )
        self.fixtures = (_slab_part(0, self.fixture_kinds, self.box),)
        left, top, right, bottom = self.label_box
        self.number_box: Box = (
            left + 0.1 * self.half,
            bottom - 0.3 * label,
            right - 0.1 * self.half,
            bottom - 0.07 * label,
        )
        self.digits = int(rng.integers(4, 9))
        self.print_kinds: tuple[Kind, ...] = digit_kinds(_DARK, self.digits, self.number_box)
        agreement = [
            f"A {_HUES[hue][0]} liquid has the label with the {kind.name}."
            for hue, kind in zip(hues, self.kinds[3:], strict=False)
        ]
        self.rules: tuple[str, ...] = (
            "The level is free." if self.level is None else f"The level is {self.level:.0%} of the height, within 2 %.",
            *agreement,
            "The label and the cap are in their places.",
            "The batch number on the label is free.",
        )
        self.breaks: tuple[Break, ...] = (
            *((Break.AMOUNT,) if self.level is not None else ()),
            Break.DISAGREEMENT,
            Break.MISSING,
            Break.SHIFTED,
        )

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws a container with one of its liquids."""
        liquid = int(rng.integers(self.liquids))
        return self._arranged(self._usual_level(rng), liquid, liquid, rng)

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws another level, the label of another liquid, none, or a shifted one."""
        liquid = int(rng.integers(self.liquids))
        level, label = self._usual_level(rng), liquid
        if which is Break.AMOUNT and self.level is not None:
            # Never below the upper edge of the label.
            level = self.level + float(rng.uniform(0.08, 0.14)) * (1 if rng.random() < 0.5 else -1)
        if which is Break.DISAGREEMENT:
            label = other_index(rng, self.liquids, liquid)
        drawn = self._arranged(level, liquid, label, rng)
        on_label = list(range(1, len(drawn.parts) - 1))
        if which is Break.MISSING:
            drawn.parts[1:-1], drawn.prints = [], []
            drawn.places = [self.label_box]
        elif which is Break.SHIFTED:
            body = self.box[3] - self.box[1]
            # Down to the floor of the container, or up by as much.
            away = float(rng.uniform(0.09, 0.12)) * body * (1 if rng.random() < 0.5 else -1)
            drawn.parts[1:-1] = [part.moved(0.0, away) for part in drawn.parts[1:-1]]
            drawn.prints = [part.moved(0.0, away) for part in drawn.prints]
            drawn.suspects = on_label
        else:
            drawn.suspects = [0] if which is Break.AMOUNT else [0, *on_label]
        return drawn

    def _usual_level(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(0.6, 0.85)) if self.level is None else self.level + float(rng.uniform(-0.02, 0.02))

    def _arranged(self, level: float, liquid: int, label: int, rng: np.random.Generator) -> Arrangement:
        left, top, right, bottom = self.box
        inset = 0.08 * self.half
        surface = bottom - inset - level * (bottom - top - 2 * inset)
        filled = (left + inset, surface, right - inset, bottom - inset)
        aside = float(rng.normal(0, 0.004 * (bottom - top)))
        middle = (self.label_box[1] + self.number_box[1]) / 2
        labelled = [_slab_part(1, self.kinds, self.label_box), Part(3 + label, (left + right) / 2, middle)]
        parts = [
            _slab_part(0, self.kinds, filled, self.colours[liquid]),
            *(part.moved(aside, 0.0) for part in labelled),
            _slab_part(2, self.kinds, self.cap_box),
        ]
        number = serial_number(rng, self.digits, self.number_box)
        return Arrangement(parts, prints=[part.moved(aside, 0.0) for part in number])


class Wires:
    """Wires between two columns of terminals; each connects the same two terminals in every image."""

    print_kinds: tuple[Kind, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the terminals, the connections and the colours of the wires."""
        self.height, self.width = shape
        # Some terminals stay free, so that a free one is nothing new.
        wires, free = int(rng.integers(3, 6)), int(rng.integers(1, 3))
        self.number = wires + free
        self.radius = max(2.5, float(rng.uniform(0.009, 0.013)) * float(np.sqrt(shape[0] * shape[1])))
        pitch = self.height / (self.number + 1)
        size = min(kinds[0].size, 0.36 * pitch / kinds[0].outline.radius())
        self.fixture_kinds: tuple[Kind, ...] = (replace(kinds[0], size=size),)
        self.ends = [
            [(float(x), float((row + 1) * pitch)) for row in range(self.number)]
            for x in (0.12 * self.width, 0.88 * self.width)
        ]
        self.fixtures: tuple[Part, ...] = tuple(Part(0, x, y) for side in self.ends for x, y in side)
        self.kinds: tuple[Kind, ...] = ()
        left, right = ([int(one) for one in rng.permutation(self.number)] for _ in range(2))
        self.links = sorted(zip(left[:wires], right[:wires], strict=True))
        self.free = (left[wires:], right[wires:])
        one_colour = rng.random() < 0.5
        hues = [int(hue) for hue in rng.integers(0, 6, wires)]
        self.colours = [_HUES[hues[0] if one_colour else hue][1] for hue in hues]
        self.rules: tuple[str, ...] = (
            *(
                f"A wire connects terminal {one + 1} on the left with terminal {two + 1} on the right."
                for one, two in self.links
            ),
            "The other terminals are free.",
        )
        self.breaks: tuple[Break, ...] = (Break.MISSING, Break.CONNECTION, Break.EXTRA)

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws every wire, bent at random."""
        return Arrangement(self._wires(rng, self.links))

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws a wire too few or too many, two wires with exchanged ends, or one with an end elsewhere."""
        links = list(self.links)
        index = int(rng.integers(len(links)))
        affected = [index]
        if which is Break.CONNECTION:
            (left, right) = links[index]
            if rng.random() < 0.5:
                links[index] = (left, int(rng.choice(self.free[1])))
            else:
                other = other_index(rng, len(links), index)
                links[index], links[other] = (left, links[other][1]), (links[other][0], right)
                affected.append(other)
        parts = self._wires(rng, links)
        if which is Break.CONNECTION:
            return Arrangement(parts, affected)
        if which is Break.EXTRA:
            link = (int(rng.choice(self.free[0])), int(rng.choice(self.free[1])))
            return Arrangement([*parts, self._wire(rng, link, self.colours[index])], [len(parts)])
        lost = parts.pop(index)
        xs, ys = zip(*lost.path, strict=True)
        return Arrangement(parts, places=[(min(xs), min(ys), max(xs), max(ys) + 2 * self.radius)])

    def _wires(self, rng: np.random.Generator, links: list[tuple[int, int]]) -> list[Part]:
        return [self._wire(rng, link, colour) for link, colour in zip(links, self.colours, strict=True)]

    def _wire(self, rng: np.random.Generator, link: tuple[int, int], colour: Rgb) -> Part:
        (x1, y1), (x2, y2) = self.ends[0][link[0]], self.ends[1][link[1]]
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
        return Part(-1, (x1 + x2) / 2, (y1 + y2) / 2, colour=colour, path=points, radius=self.radius)


class Printed:
    """A print with a symbol in two places that agree, and a serial number that varies freely."""

    fixture_kinds: tuple[Kind, ...] = ()
    fixtures: tuple[Part, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the two places and the line of the number."""
        height, width = shape
        unit = float(np.sqrt(height * width))
        reach = float(rng.uniform(0.09, 0.14)) * unit
        self.kinds: tuple[Kind, ...] = tuple(
            replace(kind, size=reach / kind.outline.radius(), relief=0.0, gloss=0.05) for kind in kinds
        )
        across = rng.random() < 0.5
        first, second = ((0.25, 0.4), (0.75, 0.4)) if across else ((0.5, 0.22), (0.5, 0.6))
        self.places = [(width * x, height * y) for x, y in (first, second)]
        self.reach = reach
        self.number_box: Box = (0.2 * width, 0.83 * height, 0.8 * width, 0.91 * height)
        self.digits = int(rng.integers(6, 13))
        self.print_kinds: tuple[Kind, ...] = digit_kinds(kinds[0].colour, self.digits, self.number_box)
        self.turns = [kind.outline.visible_turn() for kind in kinds]
        self.rules: tuple[str, ...] = (
            "The two symbols are the same and have the same direction.",
            "Each symbol is there once, in its place.",
            "The serial number is free.",
        )
        self.breaks: tuple[Break, ...] = (
            Break.DISAGREEMENT,
            Break.MISSING,
            Break.SHIFTED,
            *((Break.TURNED,) if any(self.turns) else ()),
        )

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws the same symbol in both places."""
        symbol = int(rng.integers(len(self.kinds)))
        return self._arranged(rng, (symbol, symbol))

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws two different symbols, one only, or one shifted or turned."""
        symbol = int(rng.integers(len(self.kinds)))
        if which is Break.DISAGREEMENT:
            drawn = self._arranged(rng, (symbol, other_index(rng, len(self.kinds), symbol)))
            drawn.suspects = [0, 1]
            return drawn
        if which is Break.TURNED:
            symbol = int(rng.choice([index for index, turn in enumerate(self.turns) if turn]))
        drawn = self._arranged(rng, (symbol, symbol))
        index = int(rng.integers(2))
        part = drawn.parts[index]
        if which is Break.MISSING:
            del drawn.parts[index]
            drawn.places = [box_around(part, self.reach)]
        else:
            if which is Break.TURNED:
                turn = self.turns[symbol] or 0.0
                drawn.parts[index] = replace(part, angle=0.0 if part.angle else turn)
            else:
                heading, away = rng.uniform(0, 2 * np.pi), float(rng.uniform(0.5, 0.7)) * self.reach
                drawn.parts[index] = part.moved(away * float(np.cos(heading)), away * float(np.sin(heading)))
            drawn.suspects = [index]
        return drawn

    def _arranged(self, rng: np.random.Generator, symbols: tuple[int, int]) -> Arrangement:
        is_turned = bool(rng.random() < 0.5)
        angles = [(self.turns[symbol] or 0.0) if is_turned else 0.0 for symbol in symbols]
        parts = [Part(symbol, x, y, angle) for symbol, angle, (x, y) in zip(symbols, angles, self.places, strict=True)]
        return Arrangement(parts, prints=serial_number(rng, self.digits, self.number_box))
