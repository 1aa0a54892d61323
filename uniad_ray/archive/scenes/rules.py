"""The written rules of a normal tray, as data that can be printed and checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, Protocol

from uniad_ray.archive.scenes.model import Cell, Colour, Part, PartKind, Scene

METALS = (Colour.STEEL, Colour.BRASS)
PLASTICS = (Colour.RED, Colour.BLUE)


class Rule(Protocol):
    """One rule: a stable name, a sentence, and two checks."""

    @property
    def name(self) -> str:
        """Stable name, as returned by `violations`."""
        ...

    @property
    def text(self) -> str:
        """The rule in plain language."""
        ...

    def is_broken(self, parts: Sequence[Part], columns: int) -> bool:
        """Whether a complete tray with these parts breaks the rule; `columns` is the tray's number of columns."""
        ...

    def excludes(self, parts: Sequence[Part], columns: int) -> bool:
        """Whether no normal tray can contain these parts in these cells."""
        ...


@dataclass(frozen=True, slots=True)
class ExactCount:
    """A tray holds an exact number of parts of one kind."""

    kind: PartKind
    number: int

    @property
    def name(self) -> str:
        """Stable name."""
        return f"{self.kind}_count"

    @property
    def text(self) -> str:
        """The rule in plain language."""
        return f"There {'is' if self.number == 1 else 'are'} exactly {self.number} {_plural(self.kind, self.number)}."

    def is_broken(self, parts: Sequence[Part], columns: int) -> bool:  # noqa: ARG002
        """Whether the number differs."""
        return self._count(parts) != self.number

    def excludes(self, parts: Sequence[Part], columns: int) -> bool:  # noqa: ARG002
        """Whether there are too many."""
        return self._count(parts) > self.number

    def _count(self, parts: Sequence[Part]) -> int:
        return sum(part.kind is self.kind for part in parts)


@dataclass(frozen=True, slots=True)
class OnePartPerCell:
    """No two parts share a cell."""

    name: str = "one_part_per_cell"
    text: str = "A cell holds at most one part; any cell may be empty."

    def is_broken(self, parts: Sequence[Part], columns: int) -> bool:  # noqa: ARG002
        """Whether a cell holds two parts."""
        return len({part.cell for part in parts}) < len(parts)

    excludes = is_broken


@dataclass(frozen=True, slots=True)
class PermittedColours:
    """Parts of these kinds have one of the permitted colours."""

    kinds: tuple[PartKind, ...]
    colours: tuple[Colour, ...]

    @property
    def name(self) -> str:
        """Stable name."""
        return f"{'_'.join(self.kinds)}_colours"

    @property
    def text(self) -> str:
        """The rule in plain language."""
        return f"{_listing(self.kinds)} are {' or '.join(self.colours)}."

    def is_broken(self, parts: Sequence[Part], columns: int) -> bool:  # noqa: ARG002
        """Whether a part has another colour."""
        return any(part.kind in self.kinds and part.colour not in self.colours for part in parts)

    excludes = is_broken


@dataclass(frozen=True, slots=True)
class SameColour:
    """All parts of these kinds in a tray have the same colour."""

    name: str
    text: str
    kinds: tuple[PartKind, ...]

    def is_broken(self, parts: Sequence[Part], columns: int) -> bool:  # noqa: ARG002
        """Whether two parts differ in colour."""
        return len({part.colour for part in parts if part.kind in self.kinds}) > 1

    excludes = is_broken


@dataclass(frozen=True, slots=True)
class Mirrored:
    """Parts of one kind lie in the outer columns, and the rows on the left match those on the right."""

    kind: PartKind

    @property
    def name(self) -> str:
        """Stable name."""
        return f"{self.kind}_places"

    @property
    def text(self) -> str:
        """The rule in plain language."""
        return f"Left and right agree in place: {_plural(self.kind, 2)} lie in the outer columns, all in the same row."

    def is_broken(self, parts: Sequence[Part], columns: int) -> bool:
        """Whether a part lies in an inner column, or two lie in different rows."""
        cells = {part.cell for part in parts if part.kind is self.kind}
        return any(0 < column < columns - 1 for _, column in cells) or len({row for row, _ in cells}) > 1

    excludes = is_broken


@dataclass(frozen=True, slots=True)
class NeverBefore:
    """No part of one kind lies left of (or above) a part of another kind.

    Attributes:
        kind: The kind that must come later.
        other: The kind that must come first.
        axis: "left" compares columns, "above" compares rows.
    """

    kind: PartKind
    other: PartKind
    axis: Literal["left", "above"]

    @property
    def name(self) -> str:
        """Stable name."""
        return f"{self.kind}_not_{'left_of' if self.axis == 'left' else 'above'}_{self.other}"

    @property
    def text(self) -> str:
        """The rule in plain language."""
        return f"A {self.kind} never lies further {'left' if self.axis == 'left' else 'up'} than a {self.other}."

    def is_broken(self, parts: Sequence[Part], columns: int) -> bool:  # noqa: ARG002
        """Whether such a part does."""
        index = 1 if self.axis == "left" else 0
        first = [part.cell[index] for part in parts if part.kind is self.kind]
        last = [part.cell[index] for part in parts if part.kind is self.other]
        return bool(first) and bool(last) and min(first) < max(last)

    excludes = is_broken


DEFAULT_RULES: tuple[Rule, ...] = (
    ExactCount(PartKind.BOLT, 1),
    ExactCount(PartKind.NUT, 1),
    ExactCount(PartKind.WASHER, 2),
    ExactCount(PartKind.PIN, 1),
    ExactCount(PartKind.BLOCK, 1),
    OnePartPerCell(),
    PermittedColours((PartKind.BOLT, PartKind.NUT, PartKind.WASHER), METALS),
    PermittedColours((PartKind.PIN, PartKind.BLOCK), PLASTICS),
    SameColour("metal_pair", "The bolt and the nut of a tray are of one metal.", (PartKind.BOLT, PartKind.NUT)),
    SameColour("plastic_pair", "The pin has the colour of the block.", (PartKind.PIN, PartKind.BLOCK)),
    SameColour("washer_colour", "Left and right agree in colour: the washers are of one metal.", (PartKind.WASHER,)),
    Mirrored(PartKind.WASHER),
    NeverBefore(PartKind.NUT, PartKind.BOLT, "left"),
    NeverBefore(PartKind.BLOCK, PartKind.PIN, "above"),
)


@dataclass(frozen=True, slots=True)
class SceneRules:
    """The grid of a tray and the rules for its normal contents.

    Attributes:
        rows: Rows of cells.
        columns: Columns of cells.
        rules: The rules; their names are distinct.
    """

    rows: int = 3
    columns: int = 3
    rules: tuple[Rule, ...] = DEFAULT_RULES

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, row by row."""
        return tuple((row, column) for row in range(self.rows) for column in range(self.columns))

    @property
    def kinds(self) -> tuple[PartKind, ...]:
        """Kinds of a normal tray, each repeated as often as required."""
        return tuple(rule.kind for rule in self.rules if isinstance(rule, ExactCount) for _ in range(rule.number))

    @property
    def colour_groups(self) -> tuple[tuple[PartKind, ...], ...]:
        """Groups of kinds that must share a colour."""
        return tuple(rule.kinds for rule in self.rules if isinstance(rule, SameColour))

    def colours(self, kind: PartKind) -> tuple[Colour, ...]:
        """Permitted colours of a part of this kind."""
        permitted = (rule.colours for rule in self.rules if isinstance(rule, PermittedColours) and kind in rule.kinds)
        return next(permitted, tuple(Colour))

    def empty_cells(self, parts: Iterable[Part]) -> tuple[Cell, ...]:
        """Cells without any of these parts, row by row."""
        taken = {part.cell for part in parts}
        return tuple(cell for cell in self.cells if cell not in taken)

    def describe(self) -> list[str]:
        """The rules in plain language, one sentence each."""
        return [rule.text for rule in self.rules]

    def broken(self, parts: Sequence[Part]) -> list[str]:
        """Names of the rules that a tray with these parts breaks, in the order of `rules`."""
        return [rule.name for rule in self.rules if rule.is_broken(parts, self.columns)]

    def violations(self, scene: Scene) -> list[str]:
        """Names of the rules that a scene breaks; surface damage breaks none."""
        return self.broken(scene.parts)

    def looks_normal_locally(self, parts: Sequence[Part]) -> bool:
        """Whether every part, and every pair of neighbouring parts, could also occur in a normal tray.

        A single part counts at its own cell, a pair anywhere in the tray. Neighbours are parts in cells that share an
        edge or a corner. An image patch shows one part and at most a little of its neighbours. So a tray that passes
        contains nothing new for a patch model.
        """
        neighbours = (
            (first, second)
            for first, second in combinations(parts, 2)
            if max(abs(first.cell[0] - second.cell[0]), abs(first.cell[1] - second.cell[1])) <= 1
        )
        return all(not self._excludes(part) for part in parts) and all(
            self._pair_is_normal(first, second) for first, second in neighbours
        )

    def _excludes(self, *parts: Part) -> bool:
        return any(rule.excludes(parts, self.columns) for rule in self.rules)

    def _pair_is_normal(self, first: Part, second: Part) -> bool:
        step = (second.cell[0] - first.cell[0], second.cell[1] - first.cell[1])
        for row, column in self.cells:
            cell = (row + step[0], column + step[1])
            if cell not in self.cells:
                continue
            if not self._excludes(replace(first, cell=(row, column)), replace(second, cell=cell)):
                return True
        return False


def _plural(kind: PartKind, number: int) -> str:
    return str(kind) if number == 1 else f"{kind}s"


def _listing(kinds: Sequence[PartKind]) -> str:
    names = [f"{kind}s" for kind in kinds]
    text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return text.capitalize()
