"""Differences between the description of an image and a normal one, class by class (TMUAD, algorithm 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from uniad_ray.perception.text.descriptions import ClassDescription, Description, Position

_MOST_PLACES: Final = 3


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        name: The class.
        aspect: The differing aspect.
        strength: Size of the difference, in 0..1; always 1 except for sizes.
        reason: The difference in words.
    """

    name: str
    aspect: Literal["missing", "unexpected", "count", "position", "size"]
    strength: float
    reason: str


def compare_descriptions(
    found: Description, normal: Description, sizes: Mapping[str, tuple[float, float]], *, relaxed: bool
) -> list[Difference]:
    """Compares category, count, position and size of each class.

    Args:
        found: Description of the image.
        normal: The most similar normal description.
        sizes: Minimum and maximum size of each class in normal images, in per cent of the image.
        relaxed: Compare only the categories, for few normal images (section V-B).

    Returns:
        The differences by class, in the order of the class names.
    """
    of_found, of_normal = ({one.name: one for one in each.classes} for each in (found, normal))
    differences: list[Difference] = []
    for name in sorted(of_found.keys() | of_normal.keys()):
        one, expected = of_found.get(name), of_normal.get(name)
        if one is None and expected is not None:
            where = _places(expected.positions)
            reason = f"{expected.count} of {name} expected {where}, none found"
            differences.append(Difference(name, "missing", 1.0, reason))
        elif one is not None and expected is None:
            reason = f"{one.count} of {name} found {_places(one.positions)}, none expected"
            differences.append(Difference(name, "unexpected", 1.0, reason))
        elif one is not None and expected is not None and not relaxed:
            differences += _within_class(one, expected, sizes.get(name))
    return differences


def unmatched(found: Sequence[Position], normal: Sequence[Position]) -> tuple[list[Position], list[Position]]:
    """Pairs as many places as possible that share a cell, and returns the rest.

    Returns:
        The unpaired places of the image and those of the normal description.
    """
    shared = np.array([[bool(set(one) & set(other)) for other in normal] for one in found], dtype=float)
    rows, columns = linear_sum_assignment(-shared) if shared.size else (np.empty(0, int), np.empty(0, int))
    paired = {(row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if shared[row, column]}
    paired_rows, paired_columns = {row for row, _ in paired}, {column for _, column in paired}
    return (
        [place for row, place in enumerate(found) if row not in paired_rows],
        [place for column, place in enumerate(normal) if column not in paired_columns],
    )


def _within_class(
    one: ClassDescription, expected: ClassDescription, sizes: tuple[float, float] | None
) -> Iterator[Difference]:
    extra, lacking = unmatched(one.positions, expected.positions)
    if one.count != expected.count:
        odd = lacking if one.count < expected.count else extra
        where = f" (see {_places(odd)[3:]})" if odd else ""
        reason = f"{expected.count} of {one.name} expected, {one.count} found{where}"
        yield Difference(one.name, "count", 1.0, reason)
    elif extra:
        reason = f"{one.name} expected {_places(lacking)}, found {_places(extra)}"
        yield Difference(one.name, "position", 1.0, reason)
    if sizes is not None and not sizes[0] <= one.size <= sizes[1]:
        least, greatest = sizes
        limit = least if one.size < least else greatest
        # Twice the largest or half the smallest normal size is a full difference.
        strength = min(1.0, abs(float(np.log2(max(one.size, 0.005) / max(limit, 0.005)))))
        reason = f"{one.name} covers {one.size:.2f} % of the image, {least:.2f} to {greatest:.2f} % in normal images"
        yield Difference(one.name, "size", strength, reason)


def _places(positions: Sequence[Position]) -> str:
    words = [" or ".join(position) for position in positions[:_MOST_PLACES]]
    return f"at {', '.join(words)}" + (", ..." if len(positions) > _MOST_PLACES else "")
