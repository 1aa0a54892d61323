"""Which rules of a product an arrangement breaks, worked out from the places of its parts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from uniad_ray.archive.scenes.products.arrangements.base import Arrangement, Box, Layout
from uniad_ray.archive.scenes.products.arrangements.kits import Kit, Pair
from uniad_ray.archive.scenes.products.arrangements.linked import Container, Printed, Wires
from uniad_ray.archive.scenes.products.arrangements.loose import Mixture, Rows, Scattered
from uniad_ray.archive.scenes.products.arrangements.places import Grid, Slots
from uniad_ray.archive.scenes.products.model import Break, Part

Sets = list[Counter[int]]


def broken_rules(layout: Layout, arrangement: Arrangement) -> set[Break]:
    """The rules that an arrangement breaks; raises AssertionError if it differs in a way that is no anomaly."""
    parts = arrangement.parts
    match layout:
        case Scattered():
            return differences([Counter(dict(enumerate(layout.counts)))], [kinds_of(parts)])
        case Rows():
            pitch = layout.height / len(layout.counts)
            numbers = range(len(layout.counts))
            rows = [kinds_of([part for part in parts if int(part.y // pitch) == row]) for row in numbers]
            wanted = [Counter({row: count}) for row, count in enumerate(layout.counts)]
            ordered = sorted(parts, key=lambda part: (int(part.y // pitch), part.x))
            positions = [
                sum(int(other.y // pitch) == int(part.y // pitch) and other.x < part.x for other in parts)
                for part in ordered
            ]
            angles = [
                (layout.turns[part.kind] or 0.0) * (position % 2)
                for part, position in zip(ordered, positions, strict=True)
            ]
            return differences(wanted, rows, exchange=True) | turned(ordered, angles)
        case Grid():
            return of_grid(layout, parts)
        case Kit():
            return differences([Counter(content) for content in layout.sets], sets_in(layout.cells, parts))
        case Pair():
            left, right = sets_in(layout.cells, parts)
            if left == right:
                return set()
            return {Break.DISAGREEMENT if left.keys() == right.keys() else Break.WRONG_KIND}
        case Slots():
            return of_slots(layout, parts)
        case Container():
            return of_container(layout, arrangement)
        case Wires():
            return of_wires(layout, parts)
        case Mixture():
            share = sum(part.kind == 0 for part in parts) / len(parts)
            return {Break.RATIO} if abs(share - layout.share) > 0.05 else set()
        case Printed():
            return of_print(layout, parts)
    raise AssertionError(layout)


def kinds_of(parts: Sequence[Part]) -> Counter[int]:
    return Counter(part.kind for part in parts)


def sets_in(cells: Sequence[Box], parts: Sequence[Part]) -> Sets:
    """The kinds in each box; every part must lie in one."""
    sets: Sets = [Counter() for _ in cells]
    for part in parts:
        sets[cell_of(cells, part)][part.kind] += 1
    return sets


def cell_of(cells: Sequence[Box], part: Part) -> int:
    """The box that a part lies in."""
    (index,) = (
        index
        for index, (left, top, right, bottom) in enumerate(cells)
        if left <= part.x <= right and top <= part.y <= bottom
    )
    return index


def differences(wanted: Sets, found: Sets, *, exchange: bool = False) -> set[Break]:
    """The anomaly that explains different sets; `exchange` says that a part in another's place has changed with it."""
    pairs = list(zip(wanted, found, strict=True))
    less = [(index, kind) for index, (one, two) in enumerate(pairs) for kind in (one - two).elements()]
    more = [(index, kind) for index, (one, two) in enumerate(pairs) for kind in (two - one).elements()]
    if not less and not more:
        return set()
    if len(less) == 1 and not more:
        return {Break.MISSING}
    if len(more) == 1 and not less:
        return {Break.EXTRA}
    if len(less) == len(more) == 1:
        (place, kind), (other, drawn) = less[0], more[0]
        assert (place == other) != (kind == drawn), (less, more)
        return {Break.WRONG_KIND if place == other else Break.WRONG_PLACE}
    assert exchange, (less, more)
    assert len(less) == len(more) == 2, (less, more)
    assert {kind for _, kind in less} == {kind for _, kind in more}
    assert {place for place, _ in less} == {place for place, _ in more}
    return {Break.WRONG_PLACE}


def turned(parts: Sequence[Part], angles: Sequence[float]) -> set[Break]:
    away = [abs((part.angle - angle + 180) % 360 - 180) for part, angle in zip(parts, angles, strict=True)]
    assert all(one < 40 or one > 50 for one in away)
    assert sum(one > 45 for one in away) <= 1
    return {Break.TURNED} if any(one > 45 for one in away) else set()


def nearest(parts: Sequence[Part], x: float, y: float) -> Part:
    return min(parts, key=lambda part: float(np.hypot(part.x - x, part.y - y)))


def of_grid(layout: Grid, parts: Sequence[Part]) -> set[Break]:
    width = layout.columns if layout.any_order else 1
    boxes = range(0, len(layout.cells), width)
    kinds: Sets = [Counter() for _ in boxes]
    angled = [Counter[tuple[int, int]]() for _ in boxes]
    wanted_angled = [Counter[tuple[int, int]]() for _ in boxes]
    taken = [cell_of(layout.cells, part) for part in parts]
    assert len(set(taken)) == len(taken)
    for part, cell in zip(parts, taken, strict=True):
        kinds[cell // width][part.kind] += 1
        angled[cell // width][part.kind, round(part.angle / 90) % 4] += 1
    wanted: Sets = [Counter() for _ in boxes]
    for cell, (kind, angle) in enumerate(zip(layout.assigned, layout.angles, strict=True)):
        if kind is not None:
            wanted[cell // width][kind] += 1
            wanted_angled[cell // width][kind, round(angle / 90) % 4] += 1
    if kinds == wanted and not layout.turned_freely and angled != wanted_angled:
        assert sum((one - two).total() for one, two in zip(angled, wanted_angled, strict=True)) == 1
        return {Break.TURNED}
    return differences(wanted, kinds, exchange=True)


def of_slots(layout: Slots, parts: Sequence[Part]) -> set[Break]:
    found: set[Break] = set()
    every = [*layout.places, *layout.spare]
    in_place = [nearest(every, part.x, part.y) for part in parts]
    taken = {id(place) for place in in_place}
    assert len(taken) == len(parts)
    vacant = sum(id(place) not in taken for place in layout.places)
    wrongly_taken = sum(id(place) in taken for place in layout.spare)
    if vacant and wrongly_taken:
        assert vacant == wrongly_taken == 1
        found.add(Break.WRONG_PLACE)
    elif vacant or wrongly_taken:
        assert vacant + wrongly_taken == 1
        found.add(Break.MISSING if vacant else Break.EXTRA)
    for part, place in zip(parts, in_place, strict=True):
        radius = layout.kinds[place.kind].outline.radius() * layout.kinds[place.kind].size
        if np.hypot(part.x - place.x, part.y - place.y) > 0.25 * radius:
            found.add(Break.SHIFTED)
        if part.stretch != 1.0:
            found.add(Break.AMOUNT)
    pairs = [(part.kind, place.kind) for part, place in zip(parts, in_place, strict=True)]
    strangers = [(own, wanted) for own, wanted in pairs if own != wanted]
    if strangers:
        assert len(strangers) == 2
        assert strangers[0] == strangers[1][::-1]
        found.add(Break.WRONG_PLACE)
    at_home = [(part, place.angle) for part, place in zip(parts, in_place, strict=True) if part.kind == place.kind]
    return found | turned([part for part, _ in at_home], [angle for _, angle in at_home])


def of_container(layout: Container, arrangement: Arrangement) -> set[Break]:
    found: set[Break] = set()
    _, top, _, bottom = layout.box
    named = {layout.kinds[part.kind].name: part for part in arrangement.parts}
    liquid, label = named["liquid"], named.get("label")
    inset = 0.08 * layout.half
    filled = 2 * (bottom - inset - liquid.y)
    if layout.level is not None and abs(filled / (bottom - top - 2 * inset) - layout.level) > 0.04:
        found.add(Break.AMOUNT)
    if label is None:
        assert len(named) == 2
        assert not arrangement.prints
        return found | {Break.MISSING}
    if abs(label.y - (layout.label_box[1] + layout.label_box[3]) / 2) > 0.04 * (bottom - top):
        found.add(Break.SHIFTED)
    assert top < label.y < bottom
    colour = layout.colours.index(liquid.colour)
    (mark,) = (part for part in arrangement.parts if part.kind >= 3)
    return found if mark.kind - 3 == colour else found | {Break.DISAGREEMENT}


def of_wires(layout: Wires, parts: Sequence[Part]) -> set[Break]:
    found = Counter(
        tuple(
            min(range(layout.number), key=lambda row: abs(layout.ends[side][row][1] - part.path[end][1]))
            for side, end in ((0, 0), (1, -1))
        )
        for part in parts
    )
    wanted = Counter(layout.links)
    less, more = list((wanted - found).elements()), list((found - wanted).elements())
    if not less and not more:
        return set()
    if not less or not more:
        assert len(less) + len(more) == 1
        return {Break.MISSING if less else Break.EXTRA}
    assert sorted(pair[0] for pair in less) == sorted(pair[0] for pair in more)
    assert 1 <= len(less) <= 2
    return {Break.CONNECTION}


def of_print(layout: Printed, parts: Sequence[Part]) -> set[Break]:
    found: set[Break] = set()
    if len(parts) == 1:
        return {Break.MISSING}
    for part, (x, y) in zip(parts, layout.places, strict=True):
        if np.hypot(part.x - x, part.y - y) > 0.2 * layout.reach:
            found.add(Break.SHIFTED)
    if parts[0].kind != parts[1].kind:
        return found | {Break.DISAGREEMENT}
    if abs((parts[0].angle - parts[1].angle + 180) % 360 - 180) > 45:
        found.add(Break.TURNED)
    return found
