"""Draws random trays: normal ones that obey all rules, and anomalous ones that break exactly one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from uniad_ray.archive.scenes.model import (
    Cell,
    Colour,
    Damage,
    LogicalDefect,
    Part,
    PartKind,
    Scene,
    StructuralDefect,
    View,
)
from uniad_ray.archive.scenes.rules import SceneRules

_MAX_TRIES = 20_000
_REST_ANGLES: dict[PartKind, tuple[float, ...]] = {
    PartKind.BOLT: (0.0, 90.0),
    PartKind.NUT: (0.0,),
    PartKind.WASHER: (0.0,),
    PartKind.PIN: (0.0, 90.0),
    PartKind.BLOCK: (0.0, 90.0),
}


def draw_view(rng: np.random.Generator) -> View:
    """Draws a camera and a light within the range of a fixed inspection station."""
    shift = rng.uniform(-1.5, 1.5, size=2)
    tint = rng.uniform(0.985, 1.015, size=3)
    return View(
        shift=(float(shift[0]), float(shift[1])),
        turn=float(rng.uniform(-1.0, 1.0)),
        zoom=float(rng.uniform(0.99, 1.01)),
        light_azimuth=float(rng.uniform(110.0, 140.0)),
        exposure=float(rng.uniform(0.94, 1.06)),
        tint=(float(tint[0]), float(tint[1]), float(tint[2])),
        vignette=float(rng.uniform(0.05, 0.15)),
        noise=float(rng.uniform(1.0, 2.0)),
        texture_seed=int(rng.integers(2**32)),
    )


def draw_normal(rules: SceneRules, rng: np.random.Generator) -> Scene:
    """Draws a scene that obeys every rule.

    The cells are uniform over all placements that the rules allow, by rejection sampling.

    Raises:
        ValueError: If a long search finds no placement that the rules allow.
    """
    parts = [_posed(kind, colour, rng) for kind, colour in _draw_colours(rules, rng)]
    cells = rules.cells
    if len(parts) > len(cells):
        raise ValueError(f"{len(parts)} parts do not fit into {len(cells)} cells")
    for _ in range(_MAX_TRIES):
        order = rng.permutation(len(cells))[: len(parts)]
        placed = tuple(replace(part, cell=cells[index]) for part, index in zip(parts, order, strict=True))
        if not rules.broken(placed):
            return Scene(parts=placed, view=draw_view(rng))
    raise ValueError(f"no normal tray found in {_MAX_TRIES} tries: the rules contradict each other")


def draw_logical(rules: SceneRules, kind: LogicalDefect, rng: np.random.Generator) -> Scene:
    """Draws a scene of sound parts that breaks exactly one rule, while every neighbourhood looks normal.

    A normal scene is edited: a part is removed, added, moved, exchanged or recoloured. The edit is redrawn if it breaks
    no rule or several, or if it makes parts neighbours that never are in a normal scene.

    Raises:
        ValueError: If a long search finds no such scene.
    """
    for _ in range(_MAX_TRIES):
        normal = draw_normal(rules, rng)
        parts = _edit(rules, normal.parts, kind, rng)
        if len(rules.broken(parts)) != 1 or not rules.looks_normal_locally(parts):
            continue
        vacancies: tuple[Cell, ...] = ()
        if kind is LogicalDefect.MISSING:
            (removed,) = set(normal.parts) - set(parts)
            vacancies = tuple(
                cell for cell in rules.empty_cells(parts) if not rules.broken((*parts, replace(removed, cell=cell)))
            )
        return replace(normal, parts=parts, logical=kind, suspects=_suspects(rules, parts, kind), vacancies=vacancies)
    raise ValueError(f"no tray with {kind} found in {_MAX_TRIES} tries: the rules leave no room for this defect")


def draw_structural(rules: SceneRules, kind: StructuralDefect, rng: np.random.Generator) -> Scene:
    """Draws a normal scene with one damaged surface: usually a part, sometimes the floor of an empty cell."""
    scene = draw_normal(rules, rng)
    empty = rules.empty_cells(scene.parts)
    on_floor = kind is not StructuralDefect.DEFORMED and bool(empty) and rng.random() < 0.25
    cells = empty if on_floor else tuple(part.cell for part in scene.parts)
    cell = cells[int(rng.integers(len(cells)))]
    return replace(scene, damage=Damage(kind, cell, int(rng.integers(2**32))))


def _draw_colours(rules: SceneRules, rng: np.random.Generator) -> list[tuple[PartKind, Colour]]:
    drawn: dict[PartKind, Colour] = {}
    for group in rules.colour_groups:
        shared = [colour for colour in rules.colours(group[0]) if all(colour in rules.colours(kind) for kind in group)]
        colour = shared[int(rng.integers(len(shared)))]
        drawn.update(dict.fromkeys(group, colour))
    result = []
    for kind in rules.kinds:
        choices = rules.colours(kind)
        result.append((kind, drawn.get(kind) or choices[int(rng.integers(len(choices)))]))
    return result


def _posed(kind: PartKind, colour: Colour, rng: np.random.Generator) -> Part:
    rests = _REST_ANGLES[kind]
    shift = rng.uniform(-1.2, 1.2, size=2)
    return Part(
        kind=kind,
        colour=colour,
        cell=(0, 0),
        angle=float(rests[int(rng.integers(len(rests)))] + rng.uniform(-3.0, 3.0)) % 360.0,
        shift=(float(shift[0]), float(shift[1])),
        scale=float(rng.uniform(0.98, 1.02)),
    )


def _edit(
    rules: SceneRules, parts: tuple[Part, ...], kind: LogicalDefect, rng: np.random.Generator
) -> tuple[Part, ...]:
    if kind is LogicalDefect.MISSING:
        index = int(rng.integers(len(parts)))
        return parts[:index] + parts[index + 1 :]
    if kind is LogicalDefect.EXTRA:
        empty = rules.empty_cells(parts)
        if not empty:
            return parts
        model = parts[int(rng.integers(len(parts)))]
        extra = replace(_posed(model.kind, model.colour, rng), cell=empty[int(rng.integers(len(empty)))])
        return (*parts, extra)
    edits = list(_single_changes(rules, parts, kind))
    return edits[int(rng.integers(len(edits)))][1] if edits else parts


def _suspects(rules: SceneRules, parts: tuple[Part, ...], kind: LogicalDefect) -> tuple[int, ...]:
    """Indices of the parts in any single change of the same sort that restores all rules."""
    healing = (touched for touched, changed in _single_changes(rules, parts, kind) if not rules.broken(changed))
    return tuple(sorted({index for touched in healing for index in touched}))


def _single_changes(
    rules: SceneRules, parts: tuple[Part, ...], kind: LogicalDefect
) -> Iterator[tuple[tuple[int, ...], tuple[Part, ...]]]:
    """All changes of one sort to a tray: the indices of the changed parts, and the parts after the change."""

    def with_part(index: int, part: Part) -> tuple[Part, ...]:
        return (*parts[:index], part, *parts[index + 1 :])

    if kind is LogicalDefect.EXTRA:
        for index in range(len(parts)):
            yield (index,), parts[:index] + parts[index + 1 :]
    elif kind is LogicalDefect.SWAPPED:
        for first, part in enumerate(parts):
            for second in range(first + 1, len(parts)):
                other = parts[second]
                if part.kind is not other.kind:
                    once = with_part(first, replace(part, cell=other.cell))
                    yield (first, second), (*once[:second], replace(other, cell=part.cell), *once[second + 1 :])
    elif kind is LogicalDefect.WRONG_CELL:
        for index, part in enumerate(parts):
            for cell in rules.empty_cells(parts):
                yield (index,), with_part(index, replace(part, cell=cell))
    elif kind in (LogicalDefect.WRONG_PAIR, LogicalDefect.LEFT_RIGHT):
        for index, part in enumerate(parts):
            if (part.kind is PartKind.WASHER) == (kind is LogicalDefect.LEFT_RIGHT):
                for colour in rules.colours(part.kind):
                    if colour is not part.colour:
                        yield (index,), with_part(index, replace(part, colour=colour))
