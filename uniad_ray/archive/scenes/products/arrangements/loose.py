"""Layouts without fixed places: scattered parts, loose rows, and a mixture of grains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from uniad_ray.archive.scenes.products.arrangements.base import Arrangement, Box, other_index, radius_of, scatter
from uniad_ray.archive.scenes.products.arrangements.touching import place_touching
from uniad_ray.archive.scenes.products.model import Break, Kind, Part


class Scattered:
    """Fixed numbers of parts in random places, turned at random; in some products most of them touch."""

    fixture_kinds: tuple[Kind, ...] = ()
    fixtures: tuple[Part, ...] = ()
    print_kinds: tuple[Kind, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the number of parts of each kind."""
        area = shape[0] * shape[1]
        circles = [np.pi * radius_of(kind) ** 2 for kind in kinds]
        # One of each, and one more of the largest, must fit.
        shrink = min(1.0, float(np.sqrt(0.36 * area / (sum(circles) + max(circles)))))
        self.kinds = kinds = tuple(replace(kind, size=shrink * kind.size) for kind in kinds)
        self.box: Box = (0.03 * shape[1], 0.03 * shape[0], 0.97 * shape[1], 0.97 * shape[0])
        free = 0.36 * area - shrink**2 * max(circles)
        self.counts = [1] * len(kinds)
        while True:
            index = int(rng.integers(len(kinds)))
            grown = [count + (position == index) for position, count in enumerate(self.counts)]
            covered = sum(count * np.pi * radius_of(kind) ** 2 for count, kind in zip(grown, kinds, strict=True))
            if covered > free or max(grown) > 7 or sum(grown) > 18:
                break
            self.counts = grown
        # Equal parts that touch are the harder ones to tell apart.
        self.touching = bool(rng.random() < (0.4 if len({kind.colour for kind in kinds}) > 1 else 0.8))
        self.rules: tuple[str, ...] = tuple(
            f"There are {count} of {kind.name}." for count, kind in zip(self.counts, kinds, strict=True)
        )
        several = len(kinds) > 1
        self.breaks: tuple[Break, ...] = (Break.MISSING, Break.EXTRA, *((Break.WRONG_KIND,) if several else ()))

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws all parts."""
        return Arrangement(self._place(rng, [index for index, count in enumerate(self.counts) for _ in range(count)]))

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws one part too few, too many, or of another kind."""
        wanted = [index for index, count in enumerate(self.counts) for _ in range(count)]
        chosen = int(rng.integers(len(wanted)))
        kind = wanted[chosen]
        if which is Break.MISSING:
            del wanted[chosen]
        elif which is Break.EXTRA:
            wanted.append(kind)
        else:
            wanted[chosen] = other_index(rng, len(self.kinds), kind)
        parts = self._place(rng, wanted)
        affected = {kind, wanted[chosen]} if which is Break.WRONG_KIND else {kind}
        suspects = [index for index, part in enumerate(parts) if part.kind in affected]
        # A missing part could have been anywhere.
        return Arrangement(parts, suspects, [self.box] if which is Break.MISSING else [])

    def _place(self, rng: np.random.Generator, wanted: list[int]) -> list[Part]:
        parts = [
            Part(kind, 0.0, 0.0, angle=float(rng.uniform(0, 360)), scale=float(rng.uniform(0.97, 1.03)))
            for kind in wanted
        ]
        for _ in range(10 if self.touching else 0):
            placed = place_touching(rng, parts, self.kinds, self.box)
            if placed is not None:
                return placed
        places = scatter(rng, [radius_of(self.kinds[kind]) for kind in wanted], self.box)
        return [replace(part, x=x, y=y) for part, (x, y) in zip(parts, places, strict=True)]


class Rows:
    """Loose rows, each of one kind and with its number of parts."""

    fixture_kinds: tuple[Kind, ...] = ()
    fixtures: tuple[Part, ...] = ()
    print_kinds: tuple[Kind, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the number of parts of each row."""
        self.kinds = kinds
        self.height, self.width = shape
        pitch = self.height / len(kinds)
        room = min(0.36 * pitch, 0.108 * self.width)
        self.kinds = tuple(replace(kind, size=min(kind.size, room / kind.outline.radius())) for kind in kinds)
        self.counts = []
        for kind in self.kinds:
            # One more than the rule says must fit, too.
            most = max(2, min(7, int(self.width / (2.3 * radius_of(kind))) - 2))
            self.counts.append(int(rng.integers(max(2, most // 2), most + 1)))
        self.rules: tuple[str, ...] = tuple(
            f"Row {row + 1} has {count} of {kind.name}."
            for row, (count, kind) in enumerate(zip(self.counts, self.kinds, strict=True))
        )
        # In rows that alternate, both directions are usual.
        self.turns = [kind.outline.visible_turn() if rng.random() < 0.6 else None for kind in self.kinds]
        self.rules += tuple(
            f"Every second part of row {row + 1} is turned by {turn:.0f} degrees."
            if turn
            else f"The parts of row {row + 1} have one direction."
            for row, turn in enumerate(self.turns)
        )
        self.breaks: tuple[Break, ...] = (
            Break.MISSING,
            Break.EXTRA,
            *((Break.WRONG_PLACE,) if len(kinds) > 1 else ()),
            *((Break.TURNED,) if any(self.turns) else ()),
        )

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws all rows."""
        return Arrangement(self._place(rng, [[row] * count for row, count in enumerate(self.counts)]))

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:
        """Draws a row with a part too few or too many, two parts exchanged between rows, or a turned part."""
        rows = [[row] * count for row, count in enumerate(self.counts)]
        if which is Break.TURNED:
            parts = self._place(rng, rows)
            index = int(rng.choice([number for number, part in enumerate(parts) if self.turns[part.kind]]))
            turn = self.turns[parts[index].kind] or 0.0
            is_turned = abs((parts[index].angle - turn + 180) % 360 - 180) < 45
            parts[index] = replace(parts[index], angle=parts[index].angle + (-turn if is_turned else turn))
            return Arrangement(parts, [index])
        row = int(rng.integers(len(rows)))
        if which is Break.MISSING:
            rows[row].pop()
            affected = {row}
        elif which is Break.EXTRA:
            rows[row].append(row)
            affected = {row}
        else:
            other = other_index(rng, len(rows), row)
            one, two = int(rng.integers(len(rows[row]))), int(rng.integers(len(rows[other])))
            rows[row][one], rows[other][two] = other, row
            affected = set()
        parts = self._place(rng, rows)
        in_row = [number for number, content in enumerate(rows) for _ in content]
        if which is Break.WRONG_PLACE:
            suspects = [index for index, part in enumerate(parts) if part.kind != in_row[index]]
            return Arrangement(parts, suspects)
        suspects = [index for index, number in enumerate(in_row) if number in affected]
        places = [self._band(row)] if which is Break.MISSING else []
        return Arrangement(parts, suspects, places)

    def _band(self, row: int) -> Box:
        pitch = self.height / len(self.counts)
        return 0.0, row * pitch, float(self.width), (row + 1) * pitch

    def _place(self, rng: np.random.Generator, rows: list[list[int]]) -> list[Part]:
        parts = []
        for row, content in enumerate(rows):
            middle = (row + 0.5) * self.height / len(rows)
            step = self.width / (len(content) + 1)
            drift = rng.uniform(-0.1, 0.1) * step
            for position, kind in enumerate(content):
                jitter = rng.uniform(-0.1, 0.1, 2) * (step, self.height / len(rows))
                x = (position + 1) * step + drift + jitter[0]
                angle = (self.turns[kind] or 0.0) * (position % 2) + float(rng.normal(0, 6))
                parts.append(Part(kind, float(x), float(middle + jitter[1]), angle=angle))
        return parts


class Mixture:
    """Many grains of two kinds in a ratio."""

    fixture_kinds: tuple[Kind, ...] = ()
    fixtures: tuple[Part, ...] = ()
    print_kinds: tuple[Kind, ...] = ()

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], kinds: tuple[Kind, ...]) -> None:
        """Draws the ratio and the size of the grains."""
        self.height, self.width = shape
        area = float(rng.uniform(0.0018, 0.004)) * self.height * self.width
        # Grains of one colour differ in size, too; small shapes alone are hard to tell apart.
        second = 0.45 if kinds[0].colour == kinds[1].colour else 1.0
        self.kinds: tuple[Kind, ...] = tuple(
            replace(kind, size=float(np.sqrt(share * area / kind.outline.area())))
            for kind, share in zip(kinds[:2], (1.0, second), strict=True)
        )
        circles = [np.pi * radius_of(kind) ** 2 for kind in self.kinds]
        self.count = int(0.8 * self.height * self.width / max(circles))
        self.share = float(rng.uniform(0.35, 0.65))
        self.rules: tuple[str, ...] = (f"Of the grains, {self.share:.0%} are {self.kinds[0].name}, within 3 %.",)
        self.breaks: tuple[Break, ...] = (Break.RATIO,)

    def normal(self, rng: np.random.Generator) -> Arrangement:
        """Draws the grains in the usual ratio."""
        return Arrangement(self._place(rng, self.share + float(rng.uniform(-0.03, 0.03))))

    def broken(self, which: Break, rng: np.random.Generator) -> Arrangement:  # noqa: ARG002 - there is one
        """Draws the grains in another ratio."""
        away = float(rng.uniform(0.15, 0.25)) * (1 if rng.random() < 0.5 else -1)
        parts = self._place(rng, self.share + away)
        return Arrangement(parts, places=[(0.0, 0.0, float(self.width), float(self.height))])

    def _place(self, rng: np.random.Generator, share: float) -> list[Part]:
        # A jittered grid fills the image evenly, and grains touch.
        columns = max(1, round(np.sqrt(self.count * self.width / self.height)))
        rows = max(1, round(self.count / columns))
        total = rows * columns
        is_first = np.arange(total) < round(share * total)
        rng.shuffle(is_first)
        parts = []
        for index in range(total):
            row, column = divmod(index, columns)
            x = (column + 0.5 + rng.uniform(-0.35, 0.35)) * self.width / columns
            y = (row + 0.5 + rng.uniform(-0.35, 0.35)) * self.height / rows
            kind = 0 if is_first[index] else 1
            parts.append(
                Part(kind, float(x), float(y), float(rng.uniform(0, 360)), scale=float(rng.uniform(0.85, 1.15)))
            )
        return [parts[index] for index in rng.permutation(len(parts))]
