"""Layouts with fixed places: a grid of compartments, printed slots, and a kit in a tray."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from uniad_ray.archive.scenes.products.layout import Arrangement, Box, box_around, other_index, radius_of, scatter
from uniad_ray.archive.scenes.products.model import Break, Kind, Part, Rgb
from uniad_ray.archive.scenes.products.shapes import Outline

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


class Grid:
    """Compartments with one part each; every kind has its compartments."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the compartments and their kinds."""
        height, width = shape
        margin = 0.05 * min(shape)
        rows = int(rng.integers(2, 5))
        columns = int(np.clip(round(rows * width / height), 2, 6))
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
        room = 0.36 * min((width - 2 * margin) / columns, (height - 2 * margin) / rows)
        self.kinds = tuple(replace(kind, size=min(kind.size, room / 1.25)) for kind in kinds)
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
        self.breaks: tuple[Break, ...] = (
            Break.MISSING,
            Break.EXTRA,
            *((Break.WRONG_PLACE, Break.WRONG_KIND) if several else ()),
        )

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws one part in every compartment."""
        return Arrangement([self._part(rng, index, kind) for index, kind in enumerate(self.assigned)])

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws an empty compartment, one with two parts, two exchanged parts, or another kind in one."""
        parts = self.normal(rng).parts
        index = int(rng.integers(len(parts)))
        if which is Break.MISSING:
            del parts[index]
            return Arrangement(parts, places=[self.cells[index]])
        if which is Break.EXTRA:
            kind = self.assigned[index]
            radius = 0.8 * radius_of(self.kinds[kind])
            pair = scatter(rng, [radius, radius], self.cells[index], clearance=0.9)
            parts[index] = replace(parts[index], x=pair[0][0], y=pair[0][1])
            parts.append(replace(self._part(rng, index, kind), x=pair[1][0], y=pair[1][1]))
            return Arrangement(parts, [index, len(parts) - 1])
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

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the places."""
        self.kinds = kinds
        box = (0.05 * shape[1], 0.05 * shape[0], 0.95 * shape[1], 0.95 * shape[0])
        wanted = [index for index in range(len(kinds)) for _ in range(int(rng.integers(1, 4)))]
        while sum(np.pi * radius_of(kinds[kind]) ** 2 for kind in wanted) > 0.5 * shape[0] * shape[1]:
            wanted.pop(int(rng.integers(len(wanted))))
        places = scatter(rng, [1.15 * radius_of(kinds[kind]) for kind in wanted], box)
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
        directed = any(kinds[part.kind].outline.has_direction for part in self.places)
        several = len({part.kind for part in self.places}) > 1
        self.breaks: tuple[Break, ...] = (
            Break.MISSING,
            Break.SHIFTED,
            *((Break.TURNED,) if directed else ()),
            *((Break.WRONG_PLACE,) if several else ()),
        )

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws every part in its place."""
        return Arrangement([self._jittered(rng, part) for part in self.places])

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws an empty place, a shifted or turned part, or two exchanged parts."""
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
            directed = [number for number, part in enumerate(parts) if self.kinds[part.kind].outline.has_direction]
            index = int(rng.choice(directed))
            parts[index] = replace(parts[index], angle=parts[index].angle + 180.0)
            return Arrangement(parts, [index])
        others = [number for number, part in enumerate(parts) if part.kind != parts[index].kind]
        other = int(rng.choice(others))
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

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the compartments and their sets."""
        height, width = shape
        margin = 0.05 * min(shape)
        number = int(rng.integers(2, 4))
        cuts = np.linspace(margin, width - margin, number + 1)
        self.cells: list[Box] = [(float(left), margin, float(right), height - margin) for left, right in pairwise(cuts)]
        self.kinds = tuple(replace(kind, size=min(kind.size, 0.3 * float(cuts[1] - cuts[0]))) for kind in kinds)
        self.sets: list[list[int]] = []
        room = 0.45 * float(cuts[1] - cuts[0]) * (height - 2 * margin)
        for cell in range(number):
            content = [cell % len(kinds)]
            while len(content) < 8:
                grown = [*content, int(rng.integers(len(kinds)))]
                if sum(np.pi * radius_of(self.kinds[kind]) ** 2 for kind in grown) > room:
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
        parts = []
        for box, content in zip(self.cells, sets, strict=True):
            radii = [radius_of(self.kinds[kind]) for kind in content]
            for kind, (x, y) in zip(content, scatter(rng, radii, box, clearance=0.9), strict=True):
                parts.append(Part(kind, x, y, float(rng.uniform(0, 360)), scale=float(rng.uniform(0.97, 1.03))))
        return parts
