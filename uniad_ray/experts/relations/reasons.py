"""Describes broken relations as sentences for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from uniad_ray.experts.relations.bank import Deviation
from uniad_ray.experts.relations.instances import Instances
from uniad_ray.experts.relations.part_grid import PartGrid

_MOST_REASONS: Final = 3
# In units of the usual distance in normal images.
_CLEARLY_BROKEN: Final = 3.0


def relation_reasons(deviations: Sequence[Deviation], instances: Instances, grid: PartGrid) -> list[str]:
    """At most three sentences, the most broken relation first; none if no relation is clearly broken.

    Rows and columns of the grid are numbered from 1. Places and distances are fractions of the image's side.

    Args:
        deviations: Deviations of one image.
        instances: Instances of the image.
        grid: The cells of normal instances.
    """
    broken = sorted(
        (
            (float(strength), one, position)
            for one in deviations
            for position, strength in enumerate(one.strengths)
            if strength > _CLEARLY_BROKEN
        ),
        key=lambda each: -each[0],
    )
    sentences = dict.fromkeys(_sentence(one, position, instances, grid) for _, one, position in broken)
    return list(sentences)[:_MOST_REASONS]


def _sentence(deviation: Deviation, position: int, instances: Instances, grid: PartGrid) -> str:
    attribute, kind, other, cell = deviation.measurement.relation
    value, nearest = float(deviation.measurement.values[position, 0]), float(deviation.nearest[position, 0])
    if attribute == "count":
        return f"{nearest:.0f} of {kind} expected, {value:.0f} found"
    if attribute == "cell_count":
        row, column = grid.position(cell)
        where = f"the cell in row {row + 1}, column {column + 1}"
        return f"{round(nearest, 1):g} of {kind} expected in {where}, {round(value, 1):g} found"
    if attribute == "gap":
        return f"the gap between {kind} and {other} is {value:.2f}, {nearest:.2f} in the nearest normal image"
    if attribute == "colour_pair":
        return f"the colours of {kind} and {other} never occur together in the normal images"
    if attribute == "direction_pair":
        return f"two of {kind} differ in direction or shape as in no normal image"
    if attribute in ("row_step", "column_step"):
        before, after = ("above", "below") if attribute == "row_step" else ("left of", "right of")
        if kind == other:
            direction = "down" if attribute == "row_step" else "across"
            return f"two of {kind} lie {value:.2f} apart {direction}, {nearest:.2f} in the nearest normal image"
        where, usual = (f"{abs(step):.2f} {after if step > 0 else before}" for step in (value, nearest))
        return f"{other} lies {where} {kind}, {usual} it in the nearest normal image"
    down, across = instances.centres[deviation.measurement.members[position, 0]]
    at = f"{kind} at row {down:.2f}, column {across:.2f}"
    if attribute == "look":
        return f"{at} looks unlike any in the normal images"
    if attribute == "colour":
        return f"{at} has a colour not found in the normal images"
    if attribute == "direction":
        return f"{at} has a direction or shape not found in the normal images"
    return f"{at} is in a place not found in the normal images"
