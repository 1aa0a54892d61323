"""Layouts with fixed places: a grid of compartments, printed slots, and a kit in a tray."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from uniad_ray.archive.scenes.products.arrangements.base import (
    Arrangement,
    Box,
    box_around,
    fits,
    other_index,
    radius_of,
    scatter,
)
from uniad_ray.archive.scenes.products.model import Break, Kind, Part, Rgb
from uniad_ray.archive.scenes.products.shapes import Outline

_LONG = frozenset({"bar", "bolt"})
_WALL = Outline("bar", (0.0, 0.2, 0.0, 0.0, 0.0, 0.0))


def walls(boxes: list[Box], colour: Rgb, thickness: float) -> tuple[tuple[Kind, ...], tuple[Part, ...]]:
    """Returns the walls around boxes, as fixtures."""
    kind = Kind("wall", _WALL, thickness / 0.5, colour, gloss=0.15, relief=5.0, bevel=0.12)
    parts = []
    for left, top, right, bottom in boxes:
        for x1, y1, x2, y2 in (
            (left, top, right, top),
            (left, bottom, right, bottom),
            (left, top, left, bottom),
            (right, top, right, bottom),
        ):
            length = float(np.hypot(x2 - x1, y2 - y1)) + thickness
            angle = 0.0 if y1 == y2 else 90.0
            parts.append(Part(0, (x1 + x2) / 2, (y1 + y2) / 2, angle, stretch=length / (2.6 * kind.size)))
    return (kind,), tuple(parts)


def place_sets(
    rng: np.random.Generator, cells: Sequence[Box], sets: Sequence[Sequence[int]], kinds: Sequence[Kind]
) -> list[Part]:
    """Draws the parts of each compartment, by their kinds, in random places within it."""
    parts = []
    for box, content in zip(cells, sets, strict=True):
        radii = [radius_of(kinds[kind]) for kind in content]
        for kind, (x, y) in zip(content, scatter(rng, radii, box), strict=True):
            parts.append(Part(kind, x, y, float(rng.uniform(0, 360)), scale=float(rng.uniform(0.97, 1.03))))
    return parts


class Grid:
    """Compartments with one part each; every kind has its compartments."""

    print_kinds: tuple[Kind, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the compartments and their kinds."""
        height, width = shape
        margin = 0.05 * min(shape)
        rows = int(rng.integers(2, 4))
        columns = int(np.clip(round(rows * width / height), 2, 4))
        self.cells: list[Box] = [
            (
                margin + column * (width - 2 * margin) / columns,
                margin + row * (height - 2 * margin) / rows,
                margin + (column + 1) * (width - 2 * margin) / columns,
                margin + (row + 1) * (height - 2 * margin) / rows,
            )
            for row in range(rows)
            for column in range(columns)
        ]
        # Two parts must fit into a compartment.
        room = 0.27 * min((width - 2 * margin) / columns, (height - 2 * margin) / rows)
        self.kinds = tuple(replace(kind, size=min(kind.size, room / kind.outline.radius())) for kind in kinds)
        self.assigned = [int(one) for one in rng.integers(0, len(kinds), len(self.cells))]
        self.turned_freely = bool(rng.random() < 0.5)
        grey = float(rng.uniform(0.25, 0.6))
        self.fixture_kinds, self.fixtures = walls(
            self.cells, (grey, grey, grey), 0.012 * float(np.sqrt(height * width))
        )
        self.rules: tuple[str, ...] = tuple(
            f"Compartment {index + 1} has one {self.kinds[kind].name}." for index, kind in enumerate(self.assigned)
        )
        several = len(set(self.assigned)) > 1
        self.turns = [None if self.turned_freely else kind.outline.visible_turn() for kind in self.kinds]
        if not self.turned_freely:
            self.rules += ("All parts have the same direction.",)
        self.breaks: tuple[Break, ...] = (
            Break.MISSING,
            Break.EXTRA,
            *((Break.WRONG_PLACE, Break.WRONG_KIND) if several else ()),
            *((Break.TURNED,) if any(self.turns[kind] for kind in self.assigned) else ()),
        )

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws one part in every compartment."""
        return Arrangement([self._part(rng, index, kind) for index, kind in enumerate(self.assigned)])

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws an empty compartment, one with two parts, two exchanged parts, another kind, or a turned part."""
        parts = self.normal(rng).parts
        index = int(rng.integers(len(parts)))
        if which is Break.MISSING:
            del parts[index]
            return Arrangement(parts, places=[self.cells[index]])
        if which is Break.EXTRA:
            kind = self.assigned[index]
            left, top, right, bottom = self.cells[index]
            inset = 1.1 * radius_of(self.kinds[kind])
            # In opposite corners they keep clear of each other and of the walls.
            ends = (top + inset, bottom - inset) if rng.random() < 0.5 else (bottom - inset, top + inset)
            parts[index] = replace(parts[index], x=left + inset, y=ends[0])
            parts.append(replace(self._part(rng, index, kind), x=right - inset, y=ends[1]))
            return Arrangement(parts, [index, len(parts) - 1])
        if which is Break.TURNED:
            index = int(rng.choice([number for number, kind in enumerate(self.assigned) if self.turns[kind]]))
            turn = self.turns[self.assigned[index]] or 0.0
            parts[index] = replace(parts[index], angle=parts[index].angle + turn)
            return Arrangement(parts, [index])
        others = [other for other, kind in enumerate(self.assigned) if kind != self.assigned[index]]
        other = int(rng.choice(others))
        parts[index] = self._part(rng, index, self.assigned[other])
        if which is Break.WRONG_KIND:
            return Arrangement(parts, [index])
        parts[other] = self._part(rng, other, self.assigned[index])
        return Arrangement(parts, [index, other])

    def _part(self, rng: np.random.Generator, cell: int, kind: int) -> Part:
        left, top, right, bottom = self.cells[cell]
        jitter = rng.uniform(-0.06, 0.06, 2) * (right - left)
        angle = rng.uniform(0, 360) if self.turned_freely else rng.normal(0, 4)
        return Part(kind, float((left + right) / 2 + jitter[0]), float((top + bottom) / 2 + jitter[1]), float(angle))


class Slots:
    """Fixed places with printed outlines; every part has its own place and direction."""

    print_kinds: tuple[Kind, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the places."""
        box = (0.05 * shape[1], 0.05 * shape[0], 0.95 * shape[1], 0.95 * shape[0])
        wanted = [index for index in range(len(kinds)) for _ in range(int(rng.integers(1, 4)))]
        room = 0.38 * shape[0] * shape[1]
        shrink = max(0.6, min(1.0, float(np.sqrt(room / sum(np.pi * radius_of(kinds[kind]) ** 2 for kind in wanted)))))
        self.kinds = kinds = tuple(replace(kind, size=shrink * kind.size) for kind in kinds)
        while sum(np.pi * radius_of(kinds[kind]) ** 2 for kind in wanted) > 1.01 * room:
            wanted.pop(int(rng.integers(len(wanted))))
        places = scatter(rng, [1.1 * radius_of(kinds[kind]) for kind in wanted], box)
        angles = rng.choice([0.0, 45.0, 90.0, 180.0, 270.0], len(wanted))
        self.places = [
            Part(kind, x, y, float(angle)) for kind, (x, y), angle in zip(wanted, places, angles, strict=True)
        ]
        grey = float(rng.uniform(0.05, 0.2))
        self.fixture_kinds = tuple(
            replace(kind, colour=(grey, grey, grey), relief=0.0, gloss=0.05, size=1.12 * kind.size) for kind in kinds
        )
        self.fixtures = tuple(self.places)
        self.rules: tuple[str, ...] = tuple(
            f"{kinds[part.kind].name} lies at row {part.y:.0f}, column {part.x:.0f}." for part in self.places
        )
        self.turns = [kind.outline.visible_turn() for kind in kinds]
        self.exchanges = [
            (one, two)
            for one, two in itertools.combinations(range(len(wanted)), 2)
            if wanted[one] != wanted[two]
            and fits(self.places, one, kinds[wanted[two]], kinds, box)
            and fits(self.places, two, kinds[wanted[one]], kinds, box)
        ]
        self.long = [index for index, kind in enumerate(wanted) if kinds[kind].outline.family in _LONG]
        if self.long:
            self.rules += ("Every part has its usual length.",)
        self.breaks: tuple[Break, ...] = (
            Break.MISSING,
            Break.SHIFTED,
            *((Break.TURNED,) if any(self.turns[kind] for kind in wanted) else ()),
            *((Break.WRONG_PLACE,) if self.exchanges else ()),
            *((Break.AMOUNT,) if self.long else ()),
        )

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws every part in its place."""
        return Arrangement([self._jittered(rng, part) for part in self.places])

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws an empty place, a shifted or turned part, two exchanged parts, or a part of another length."""
        parts = self.normal(rng).parts
        index = int(rng.integers(len(parts)))
        radius = radius_of(self.kinds[parts[index].kind])
        if which is Break.MISSING:
            place = box_around(parts.pop(index), radius)
            return Arrangement(parts, places=[place])
        if which is Break.SHIFTED:
            turn = rng.uniform(0, 2 * np.pi)
            away = float(rng.uniform(0.35, 0.5)) * radius
            parts[index] = parts[index].moved(away * float(np.cos(turn)), away * float(np.sin(turn)))
            return Arrangement(parts, [index])
        if which is Break.TURNED:
            index = int(rng.choice([number for number, part in enumerate(parts) if self.turns[part.kind]]))
            turn = self.turns[parts[index].kind] or 0.0
            parts[index] = replace(parts[index], angle=parts[index].angle + turn)
            return Arrangement(parts, [index])
        if which is Break.AMOUNT:
            index = int(rng.choice(self.long))
            parts[index] = replace(parts[index], stretch=float(rng.uniform(0.6, 0.75)))
            return Arrangement(parts, [index])
        index, other = self.exchanges[int(rng.integers(len(self.exchanges)))]
        parts[index], parts[other] = (
            replace(parts[index], kind=parts[other].kind),
            replace(parts[other], kind=parts[index].kind),
        )
        return Arrangement(parts, [index, other])

    def _jittered(self, rng: np.random.Generator, part: Part) -> Part:
        dx, dy = rng.normal(0, 0.02 * radius_of(self.kinds[part.kind]), 2)
        return replace(part.moved(float(dx), float(dy)), angle=part.angle + float(rng.normal(0, 1.5)))


class Kit:
    """A tray with compartments; each has its own set of parts, which lie in it freely."""

    print_kinds: tuple[Kind, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the compartments and their sets."""
        height, width = shape
        margin = 0.05 * min(shape)
        number = int(rng.integers(2, 4))
        cuts = np.linspace(margin, width - margin, number + 1)
        self.cells: list[Box] = [
            (float(left), margin, float(right), height - margin) for left, right in itertools.pairwise(cuts)
        ]
        most = 0.36 * float(cuts[1] - cuts[0])
        self.kinds = tuple(replace(kind, size=min(kind.size, most / kind.outline.radius())) for kind in kinds)
        self.sets: list[list[int]] = []
        circles = [np.pi * radius_of(kind) ** 2 for kind in self.kinds]
        room = 0.48 * float(cuts[1] - cuts[0]) * (height - 2 * margin)
        for cell in range(number):
            content = [cell % len(kinds)]
            while len(content) < 8:
                grown = [*content, int(rng.integers(len(kinds)))]
                # One more than the rule says must fit, too.
                if sum(circles[kind] for kind in grown) + max(circles) > room:
                    break
                content = grown
            self.sets.append(sorted(content))
        grey = float(rng.uniform(0.2, 0.6))
        self.fixture_kinds, self.fixtures = walls(
            self.cells, (grey, grey, grey), 0.014 * float(np.sqrt(height * width))
        )
        self.rules: tuple[str, ...] = tuple(
            f"Compartment {index + 1} has {self._listed(content)}." for index, content in enumerate(self.sets)
        )
        self.breaks: tuple[Break, ...] = (
            Break.MISSING,
            Break.EXTRA,
            *((Break.WRONG_KIND, Break.WRONG_PLACE) if len(kinds) > 1 else ()),
        )

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws every set in its compartment."""
        return Arrangement(self._place(rng, self.sets))

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws a compartment with a part too few, too many or of another kind, or a part in another compartment."""
        sets = [list(content) for content in self.sets]
        cell = int(rng.integers(len(sets)))
        position = int(rng.integers(len(sets[cell])))
        kind = sets[cell][position]
        cells = [cell]
        if which is Break.MISSING:
            del sets[cell][position]
        elif which is Break.EXTRA:
            sets[cell].append(kind)
        elif which is Break.WRONG_KIND:
            sets[cell][position] = other_index(rng, len(self.kinds), kind)
        else:
            cells.append(other_index(rng, len(sets), cell))
            sets[cells[1]].append(sets[cell].pop(position))
        parts = self._place(rng, sets)
        in_cell = [number for number, content in enumerate(sets) for _ in content]
        suspects = [index for index, number in enumerate(in_cell) if number in cells]
        return Arrangement(parts, suspects, [self.cells[cell]] if which in (Break.MISSING, Break.WRONG_PLACE) else [])

    def _listed(self, content: list[int]) -> str:
        return ", ".join(f"{content.count(kind)} of {self.kinds[kind].name}" for kind in sorted(set(content)))

    def _place(self, rng: np.random.Generator, sets: list[list[int]]) -> list[Part]:
        return place_sets(rng, self.cells, sets, self.kinds)


class Pair:
    """A tray with two compartments that hold the same number of the same kind; both vary from image to image."""

    print_kinds: tuple[Kind, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the tray and the largest number of parts."""
        height, width = shape
        margin = 0.05 * min(shape)
        middle = width / 2
        self.cells: list[Box] = [
            (margin, margin, middle, height - margin),
            (middle, margin, width - margin, height - margin),
        ]
        self.most = int(rng.integers(4, 7))
        # Two more than usual must fit.
        room = 0.5 * (middle - margin) * (height - 2 * margin) / (self.most + 2)
        largest = min(float(np.sqrt(room / np.pi)), 0.4 * (middle - margin))
        self.kinds = tuple(replace(kind, size=min(kind.size, largest / kind.outline.radius())) for kind in kinds)
        grey = float(rng.uniform(0.2, 0.6))
        self.fixture_kinds, self.fixtures = walls(
            self.cells, (grey, grey, grey), 0.014 * float(np.sqrt(height * width))
        )
        self.rules: tuple[str, ...] = ("Left and right have the same number of parts, all of the same kind.",)
        self.breaks: tuple[Break, ...] = (Break.DISAGREEMENT, *((Break.WRONG_KIND,) if len(kinds) > 1 else ()))

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws equal sets."""
        kind, number = int(rng.integers(len(self.kinds))), int(rng.integers(2, self.most + 1))
        return Arrangement(place_sets(rng, self.cells, [[kind] * number] * 2, self.kinds))

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws one or two parts more on one side, or another kind on one side."""
        kind, number = int(rng.integers(len(self.kinds))), int(rng.integers(2, self.most + 1))
        sets = [[kind] * number, [kind] * number]
        side = int(rng.integers(2))
        if which is Break.WRONG_KIND:
            sets[side] = [other_index(rng, len(self.kinds), kind)] * number
        else:
            sets[side] = [kind] * (number + int(rng.integers(1, 3)))
        parts = place_sets(rng, self.cells, sets, self.kinds)
        return Arrangement(parts, list(range(len(parts))))


def draw_kit(rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> Kit | Pair:
    """Draws a kit in a tray: a set for each compartment, or two compartments that agree."""
    return Pair(rng, shape, kinds) if rng.random() < 0.35 else Kit(rng, shape, kinds)
