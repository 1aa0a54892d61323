"""Relations between instances as numbers, and their distances to those of normal images."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from uniad_ray.experts.relations.instances import NO_KIND, Instances
from uniad_ray.experts.relations.part_grid import PartGrid

Attribute = Literal[
    "count", "cell_count",
    "look", "colour", "place", "row", "column", "direction",
    "row_step", "column_step", "gap", "colour_pair", "direction_pair",
]  # fmt: skip

# The effect of measurement noise on a value, in its unit: 2 % of the image's side, a barely visible colour change.
_TOLERANCE: Final[Mapping[Attribute, float]] = {
    "count": 0.1,
    "cell_count": 0.1,
    "look": 0.1,
    "colour": 2.0,
    "place": 0.02,
    "row": 0.02,
    "column": 0.02,
    "direction": 0.05,
    "row_step": 0.02,
    "column_step": 0.02,
    "gap": 0.02,
    "colour_pair": 2.0,
    "direction_pair": 0.05,
}
_MOST_VALUES: Final = 1000
_MOST_DIRECTION_PAIRS: Final = 15
"""Those of six instances. The directions of more, such as grains, follow no rule of pairs."""
# One in this many normal values may be a segmentation error.
_ODD_SHARE: Final = 32
_NO_INSTANCE: Final = np.zeros((1, 1), dtype=np.float32)


class Relation(NamedTuple):
    """A measured attribute, with the kinds of its instances.

    Attributes:
        attribute: Of the image: `count` of a kind, and `cell_count` of a kind in a cell of the grid. Of one instance:
            `look` (all vectors), `colour`, `place`, `row`, `column` and `direction`. Of two instances: `row_step` and
            `column_step` from the first to the second, the `gap` between their boxes, and their `colour_pair`. Of two
            of one kind: `direction_pair`, the difference of their directions.
        kind: Kind of the instance, or of the first of two.
        other: Kind of the second instance; equal to `kind` if there is only one.
        cell: Cell of a `cell_count`; otherwise 0.
    """

    attribute: Attribute
    kind: str
    other: str
    cell: int = 0


@dataclass(frozen=True)
class Measurement:
    """The q values of one relation in one image.

    Attributes:
        relation: The relation.
        values: float32, shape (q, d).
        members: int64, shape (q, p): indices of the p instances of each value.
    """

    relation: Relation
    values: np.ndarray
    members: np.ndarray


@dataclass(frozen=True)
class Deviation:
    """Deviation of a measurement from normal ones.

    Attributes:
        measurement: The measurement.
        nearest: The normal value nearest to each value, float32, shape (q, d).
        strengths: float64, shape (q,), >= 0: distance to the nearest value, divided by the usual distance in normal
            images.
    """

    measurement: Measurement
    nearest: np.ndarray
    strengths: np.ndarray


def measure(
    instances: Instances,
    looks: np.ndarray,
    counts: Mapping[str, int],
    grid: PartGrid,
    numerous: Collection[str] = (),
) -> list[Measurement]:
    """Measures all relations of one image; instances without a kind only have a `look`.

    Args:
        instances: The n described instances.
        looks: float, shape (n, D): appearance of each described instance.
        counts: Number of all instances of each kind, also of kinds without any.
        grid: The cells; a grid of one cell has no cell counts.
        numerous: Kinds that are in no order, such as grains: they only have a `count`, a `look` and a `colour`.
    """
    kind_of_each = np.array(instances.kinds, dtype=object)
    members = {kind: np.flatnonzero(kind_of_each == kind) for kind in (NO_KIND, *sorted(counts))}
    found = [Measurement(Relation("look", kind, kind), looks[each], each[:, None]) for kind, each in members.items()]
    del members[NO_KIND]
    shares = grid.shares(instances.boxes)
    for kind, each in members.items():
        centres = instances.centres[each]
        values: dict[Attribute, np.ndarray] = {"colour": instances.colours[each]}
        if kind not in numerous:
            values |= {
                "place": centres,
                "row": centres[:, :1],
                "column": centres[:, 1:],
                "direction": instances.directions[each],
            }
        count = np.array([[counts[kind]]], dtype=np.float32)
        found.append(Measurement(Relation("count", kind, kind), count, each[None]))
        found += [Measurement(Relation(name, kind, kind), value, each[:, None]) for name, value in values.items()]
        if len(grid) > 1 and kind not in numerous:
            found += _cell_counts(kind, each, shares[each])
    there = [kind for kind, each in members.items() if len(each) and kind not in numerous]
    for kind, other in itertools.combinations_with_replacement(there, 2):
        pairs = np.array(list(_pairs(members[kind], members[other], alike=kind == other)), dtype=np.int64).reshape(
            -1, 2
        )
        values = _of_two(instances, pairs[:, 0], pairs[:, 1], alike=kind == other)
        found += [Measurement(Relation(name, kind, other), value, pairs) for name, value in values.items()]
    return [one for one in found if len(one.values)]


def _cell_counts(kind: str, members: np.ndarray, shares: np.ndarray) -> Iterator[Measurement]:
    counts = shares.sum(axis=0, keepdims=True, dtype=np.float32)
    for cell in range(shares.shape[1]):
        inside = members[shares[:, cell] > 0.5][None]
        yield Measurement(Relation("cell_count", kind, kind, cell), counts[:, [cell]], inside)


def _pairs(first: np.ndarray, second: np.ndarray, *, alike: bool) -> Iterator[tuple[int, int]]:
    return itertools.combinations(first, 2) if alike else itertools.product(first, second)


def _of_two(instances: Instances, first: np.ndarray, second: np.ndarray, *, alike: bool) -> dict[Attribute, np.ndarray]:
    steps = instances.centres[second] - instances.centres[first]
    colours, other_colours = instances.colours[first], instances.colours[second]
    if alike:
        # Two instances of one kind have no order: only unsigned differences are meaningful.
        steps, colour_pairs = np.abs(steps), np.abs(other_colours - colours)
    else:
        colour_pairs = np.concatenate([colours, other_colours], axis=1)
    boxes, other_boxes = instances.boxes[first], instances.boxes[second]
    apart = np.maximum(boxes[:, :2] - other_boxes[:, 2:], other_boxes[:, :2] - boxes[:, 2:])
    found: dict[Attribute, np.ndarray] = {
        "row_step": steps[:, :1],
        "column_step": steps[:, 1:],
        "gap": np.linalg.norm(np.maximum(apart, 0.0), axis=1, keepdims=True),
        "colour_pair": colour_pairs,
    }
    if alike and len(first) <= _MOST_DIRECTION_PAIRS:
        differences = instances.directions[second] - instances.directions[first]
        found["direction_pair"] = np.linalg.norm(differences, axis=1, keepdims=True)
    return found


class RelationBank:
    """The values of every relation in normal images, and the distance of a new value to the nearest of them.

    The distance is divided by the usual distance between normal images, which is a sum of two. The first is the root
    mean square of each value's distance to the second nearest other image, plus one value as unusual as the spread of
    the attribute. So a rule that held 60 times counts more than one that held six times. A pattern in only two images
    is no rule yet, because other images may differ. A value without any rule is never far from normal. The second is
    the longest distance of a normal value to the other normal images: with many relations, one of them is often broken
    by chance, and such a relation has been broken before. The counts of a kind are few distinct numbers: their
    distances are divided by their standard deviation.
    """

    def __init__(self, images: Sequence[Sequence[Measurement]]) -> None:
        """Builds the bank from the measurements of each normal image."""
        found: dict[Relation, list[tuple[np.ndarray, np.ndarray]]] = {}
        for owner, measurements in enumerate(images):
            for one in measurements:
                found.setdefault(one.relation, []).append((one.values, np.full(len(one.values), owner)))
        self._values: dict[Relation, np.ndarray] = {}
        owners: dict[Relation, np.ndarray] = {}
        for relation, each in found.items():
            values, of = (np.concatenate(part) for part in zip(*each, strict=True))
            kept = np.linspace(0, len(values) - 1, min(len(values), _MOST_VALUES)).astype(np.int64)
            self._values[relation], owners[relation] = values[kept], of[kept]
        spreads = _spreads(self._values)
        self._scales = {
            relation: _TOLERANCE[relation.attribute]
            + (
                float(values.std())
                if relation.attribute == "count"
                else _usual_distance(values, owners[relation], spreads[relation.attribute])
            )
            for relation, values in self._values.items()
        }

    def deviations(self, measurements: Sequence[Measurement]) -> list[Deviation]:
        """Deviation of each measurement from normal.

        For a kind that no normal image has, the normal count is 0, and its other relations are omitted. So are
        relations to other kinds that no normal image has.
        """
        found = []
        for one in measurements:
            is_count = one.relation.attribute == "count"
            normal = self._values.get(one.relation, _NO_INSTANCE if is_count else None)
            if normal is not None:
                scale = self._scales.get(one.relation, _TOLERANCE[one.relation.attribute])
                distances = cdist(one.values, normal)
                nearest = np.argsort(distances, axis=1, kind="stable")[:, len(normal) // _ODD_SHARE if is_count else 0]
                strengths = np.take_along_axis(distances, nearest[:, None], axis=1)[:, 0] / scale
                found.append(Deviation(one, normal[nearest], strengths))
        return found


def _spreads(values: Mapping[Relation, np.ndarray]) -> dict[Attribute, float]:
    """Root mean square distance of the values to the mean of their relation, by attribute."""
    squared: dict[Attribute, list[np.ndarray]] = {}
    for relation, each in values.items():
        squared.setdefault(relation.attribute, []).append(np.square(each - each.mean(axis=0)).sum(axis=1))
    spreads = {attribute: float(np.sqrt(np.concatenate(each).mean())) for attribute, each in squared.items()}
    # Most cells are always empty; one part more or less is already unusual.
    return spreads | {"cell_count": 1.0}


def _usual_distance(values: np.ndarray, owners: np.ndarray, spread: float) -> float:
    images, first = np.unique(owners, return_index=True)
    # Values in image order: shape (values, images).
    squared = np.minimum.reduceat(cdist(values, values, "sqeuclidean"), first, axis=1)
    squared[owners[:, None] == images] = np.inf
    squared.sort(axis=1)
    squared[np.isinf(squared)] = spread**2
    nearest, second = squared[:, 0], squared[:, min(1, len(images) - 1)]
    return float(np.sqrt((second.sum() + spread**2) / (len(values) + 1)) + np.sqrt(nearest.max()))
