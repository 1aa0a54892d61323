"""Kits in trays: a set for each compartment, or two compartments that agree."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from uniad_ray.archive.scenes.products.arrangements.base import Arrangement, Box, other_index, radius_of, scatter
from uniad_ray.archive.scenes.products.arrangements.places import walls
from uniad_ray.archive.scenes.products.model import Break, Kind, Part


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
        room = 0.5 * (middle - margin) * (height - 2 * margin) / (self.most + 1)
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
        """Draws one or two parts more or less on one side, or another kind on one side."""
        kind, number = int(rng.integers(len(self.kinds))), int(rng.integers(2, self.most + 1))
        sets = [[kind] * number, [kind] * number]
        side = int(rng.integers(2))
        if which is Break.WRONG_KIND:
            sets[side] = [other_index(rng, len(self.kinds), kind)] * number
        else:
            others = [other for other in range(2, self.most + 1) if 1 <= abs(other - number) <= 2]
            sets[side] = [kind] * int(rng.choice(others))
        parts = place_sets(rng, self.cells, sets, self.kinds)
        return Arrangement(parts, list(range(len(parts))))


def draw_kit(rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> Kit | Pair:
    """Draws a kit in a tray: a set for each compartment, or two compartments that agree."""
    return Pair(rng, shape, kinds) if rng.random() < 0.35 else Kit(rng, shape, kinds)
