"""Layouts with fixed places: a grid of compartments, and places that are printed or not."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from uniad_ray.archive.scenes.products.arrangements.base import (
    Arrangement,
    Box,
    box_around,
    fits,
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
        room = 0.33 * min((width - 2 * margin) / columns, (height - 2 * margin) / rows)
        self.kinds = tuple(replace(kind, size=min(kind.size, room / kind.outline.radius())) for kind in kinds)
        self.assigned: list[int | None] = [int(one) for one in rng.integers(0, len(kinds), len(self.cells))]
        # In some products the parts of a row lie in any order.
        self.columns = columns
        self.any_order = bool(rng.random() < 0.6)
        # Some compartments stay empty, so that an empty one is nothing new.
        self.empty = (
            [row * columns + int(rng.integers(columns)) for row in range(rows)]
            if self.any_order
            else [int(one) for one in rng.permutation(len(self.cells))[: max(1, len(self.cells) // 5)]]
        )
        for index in self.empty:
            self.assigned[index] = None
        self.turned_freely = bool(rng.random() < 0.5)
        turns = [None if self.turned_freely else kind.outline.visible_turn() for kind in self.kinds]
        self.angles = [0.0 if kind is None else (turns[kind] or 0.0) * float(rng.integers(2)) for kind in self.assigned]
        self.full = [index for index in range(len(self.cells)) if index not in self.empty]
        self.turnable = [
            (index, self.angles[other])
            for index, other in itertools.permutations(self.full, 2)
            if self.assigned[index] == self.assigned[other] and self.angles[index] != self.angles[other]
        ]
        grey = float(rng.uniform(0.25, 0.6))
        self.fixture_kinds, self.fixtures = walls(
            self.cells, (grey, grey, grey), 0.012 * float(np.sqrt(height * width))
        )
        self.rules: tuple[str, ...] = tuple(
            f"Compartment {index + 1} is empty."
            if kind is None
            else f"Compartment {index + 1} has one {self.kinds[kind].name}"
            + (f", turned by {angle:.0f} degrees." if angle else ".")
            for index, (kind, angle) in enumerate(zip(self.assigned, self.angles, strict=True))
        )
        if self.any_order:
            self.rules += ("The compartments of a row may be exchanged.",)
        # Pairs whose exchange breaks a rule.
        self.exchanges = [
            (one, two)
            for one, two in itertools.combinations(range(len(self.cells)), 2)
            if self.assigned[one] != self.assigned[two] and not (self.any_order and one // columns == two // columns)
        ]
        several = len({self.assigned[index] for index in self.full}) > 1
        self.breaks: tuple[Break, ...] = (
            Break.MISSING,
            Break.EXTRA,
            *((Break.WRONG_PLACE,) if self.exchanges else ()),
            *((Break.WRONG_KIND,) if several else ()),
            *((Break.TURNED,) if self.turnable else ()),
        )

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws one part in every compartment that has one."""
        return Arrangement(self._parts(rng, self._contents(rng))[0])

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws a part too few or too many, one or two in other compartments, of another kind, or turned."""
        contents = self._contents(rng)
        if which is Break.TURNED:
            index, angle = self.turnable[int(rng.integers(len(self.turnable)))]
            parts, where = self._parts(rng, contents)
            number = where[contents.index(index)]
            parts[number] = replace(parts[number], angle=angle + float(rng.normal(0, 6)))
            return Arrangement(parts, [number])
        index = int(rng.choice(self.full))
        cells = [contents.index(index)]
        if which is Break.MISSING:
            contents[cells[0]] = self.empty[0]
        elif which is Break.EXTRA:
            cells = [contents.index(int(rng.choice(self.empty)))]
            contents[cells[0]] = index
        elif which is Break.WRONG_KIND:
            contents[cells[0]] = int(
                rng.choice([other for other in self.full if self.assigned[other] != self.assigned[index]])
            )
        else:
            one, two = self.exchanges[int(rng.integers(len(self.exchanges)))]
            cells = [contents.index(one), contents.index(two)]
            contents[cells[0]], contents[cells[1]] = two, one
        if self.any_order and which in (Break.MISSING, Break.EXTRA):
            # Any like compartment of the row may be the wrong one.
            row, kind = cells[0] // self.columns, self.assigned[contents[cells[0]]]
            cells = [cell for cell in range(len(contents)) if cell // self.columns == row]
            cells = [cell for cell in cells if self.assigned[contents[cell]] == kind]
        parts, where = self._parts(rng, contents)
        suspects = [where[cell] for cell in cells if cell in where]
        return Arrangement(parts, suspects, [self.cells[cell] for cell in cells if cell not in where])

    def _contents(self, rng: np.random.Generator) -> list[int]:
        """Draws, for each compartment, the one whose usual content it has."""
        contents = list(range(len(self.cells)))
        for start in range(0, len(contents) if self.any_order else 0, self.columns):
            row = slice(start, start + self.columns)
            contents[row] = [start + int(one) for one in rng.permutation(self.columns)]
        return contents

    def _parts(self, rng: np.random.Generator, contents: list[int]) -> tuple[list[Part], dict[int, int]]:
        """Draws the parts, and says which part each full compartment has."""
        full = [cell for cell, like in enumerate(contents) if self.assigned[like] is not None]
        parts = [self._part(rng, cell, contents[cell]) for cell in full]
        return parts, {cell: number for number, cell in enumerate(full)}

    def _part(self, rng: np.random.Generator, cell: int, like: int) -> Part:
        """Draws the part of one compartment in another, or in its own."""
        left, top, right, bottom = self.cells[cell]
        jitter = rng.uniform(-0.08, 0.08, 2) * min(right - left, bottom - top)
        angle = rng.uniform(0, 360) if self.turned_freely else self.angles[like] + rng.normal(0, 6)
        kind = self.assigned[like]
        if kind is None:
            raise ValueError(f"compartment {like} is empty")
        return Part(kind, float((left + right) / 2 + jitter[0]), float((top + bottom) / 2 + jitter[1]), float(angle))


class Slots:
    """Fixed places; every part has its own place, direction and length.

    In some products the places are printed, and some printed places stay empty, so that an empty one is nothing new.
    """

    print_kinds: tuple[Kind, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the places."""
        self.box: Box = (0.05 * shape[1], 0.05 * shape[0], 0.95 * shape[1], 0.95 * shape[0])
        wanted = [index for index in range(len(kinds)) for _ in range(int(rng.integers(1, 4)))]
        is_printed = bool(rng.random() < 0.4)
        spare = [int(one) for one in rng.choice(wanted, int(rng.integers(1, 3)))] if is_printed else []
        room = 0.38 * shape[0] * shape[1]
        covered = sum(np.pi * radius_of(kinds[kind]) ** 2 for kind in (*wanted, *spare))
        shrink = max(0.6, min(1.0, float(np.sqrt(room / covered))))
        self.kinds = kinds = tuple(replace(kind, size=shrink * kind.size) for kind in kinds)
        while sum(np.pi * radius_of(kinds[kind]) ** 2 for kind in (*wanted, *spare)) > 1.01 * room:
            wanted.pop(int(rng.integers(len(wanted))))
        if not set(spare) <= set(wanted):
            raise ValueError("a printed place has no part of its kind")
        at = scatter(rng, [1.1 * radius_of(kinds[kind]) for kind in (*wanted, *spare)], self.box)
        angles = rng.choice([0.0, 45.0, 90.0, 180.0, 270.0], len(at))
        every = [
            Part(kind, x, y, float(angle)) for kind, (x, y), angle in zip((*wanted, *spare), at, angles, strict=True)
        ]
        self.places, self.spare = every[: len(wanted)], every[len(wanted) :]
        grey = float(rng.uniform(0.05, 0.2))
        self.fixture_kinds = tuple(
            replace(kind, colour=(grey, grey, grey), relief=0.0, gloss=0.05, size=1.12 * kind.size) for kind in kinds
        )
        self.fixtures = tuple(every) if is_printed else ()
        self.exchanges = [
            (one, two)
            for one, two in itertools.combinations(range(len(wanted)), 2)
            if wanted[one] != wanted[two]
            and fits(self.places, one, kinds[wanted[two]], kinds, self.box)
            and fits(self.places, two, kinds[wanted[one]], kinds, self.box)
        ]
        # Directions that a kind has elsewhere.
        self.turnable = [
            (one, self.places[two].angle)
            for one, two in itertools.permutations(range(len(wanted)), 2)
            if wanted[one] == wanted[two]
            and abs((self.places[two].angle - self.places[one].angle + 180) % 360 - 180) >= 90
            and kinds[wanted[one]].outline.shows_turn(self.places[two].angle - self.places[one].angle)
        ]
        self.long = [index for index, kind in enumerate(wanted) if kinds[kind].outline.family in _LONG]
        self.rules: tuple[str, ...] = tuple(
            f"{kinds[part.kind].name} at row {part.y:.0f}, column {part.x:.0f}, turned by {part.angle:.0f} degrees."
            for part in self.places
        )
        if self.spare:
            self.rules += ("The other printed places are empty.",)
            self.breaks: tuple[Break, ...] = (Break.MISSING, Break.EXTRA, Break.WRONG_PLACE)
            return
        if self.long:
            self.rules += ("Every part has its usual length.",)
        self.breaks = (
            Break.MISSING,
            Break.SHIFTED,
            *((Break.TURNED,) if self.turnable else ()),
            *((Break.WRONG_PLACE,) if self.exchanges else ()),
            *((Break.AMOUNT,) if self.long else ()),
        )

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws every part in its place."""
        return Arrangement([self._jittered(rng, part) for part in self.places])

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws a part too few or too many, in another place, shifted, turned, or of another length."""
        parts = self.normal(rng).parts
        index = int(rng.integers(len(parts)))
        if which is Break.MISSING:
            usual = {spare.kind for spare in self.spare}
            index = int(rng.choice([number for number, part in enumerate(parts) if not usual or part.kind in usual]))
            place = box_around(parts[index], radius_of(self.kinds[parts[index].kind]))
            del parts[index]
            return Arrangement(parts, places=[place])
        if which is Break.EXTRA:
            spare = self.spare[int(rng.integers(len(self.spare)))]
            return Arrangement([*parts, self._jittered(rng, spare)], [len(parts)])
        if which is Break.SHIFTED:
            parts[index] = self._shifted(rng, parts, index)
            return Arrangement(parts, [index])
        if which is Break.TURNED:
            index, angle = self.turnable[int(rng.integers(len(self.turnable)))]
            parts[index] = replace(parts[index], angle=angle + float(rng.normal(0, 2)))
            return Arrangement(parts, [index])
        if which is Break.AMOUNT:
            index = int(rng.choice(self.long))
            parts[index] = replace(parts[index], stretch=float(rng.uniform(0.6, 0.75)))
            return Arrangement(parts, [index])
        if self.spare:
            spare = self.spare[int(rng.integers(len(self.spare)))]
            index = int(rng.choice([number for number, part in enumerate(parts) if part.kind == spare.kind]))
            place = box_around(parts[index], radius_of(self.kinds[spare.kind]))
            parts[index] = self._jittered(rng, spare)
            return Arrangement(parts, [index], [place])
        index, other = self.exchanges[int(rng.integers(len(self.exchanges)))]
        one, two = parts[index], parts[other]
        parts[index], parts[other] = replace(one, x=two.x, y=two.y), replace(two, x=one.x, y=one.y)
        return Arrangement(parts, [index, other])

    def _shifted(self, rng: np.random.Generator, parts: list[Part], index: int) -> Part:
        """Draws the part next to its place, clear of the others if there is room."""
        kind = self.kinds[parts[index].kind]
        moved = parts[index]
        for _ in range(40):
            turn, away = rng.uniform(0, 2 * np.pi), float(rng.uniform(0.4, 0.8)) * radius_of(kind)
            moved = parts[index].moved(away * float(np.cos(turn)), away * float(np.sin(turn)))
            if fits([*parts[:index], moved, *parts[index + 1 :]], index, kind, self.kinds, self.box):
                break
        return moved

    def _jittered(self, rng: np.random.Generator, part: Part) -> Part:
        dx, dy = rng.normal(0, 0.03 * radius_of(self.kinds[part.kind]), 2)
        return replace(part.moved(float(dx), float(dy)), angle=part.angle + float(rng.normal(0, 2)))
