from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.experts.relations.bank import Attribute, Deviation, Measurement, Relation
from uniad_ray.experts.relations.instances import NO_KIND, Instances
from uniad_ray.experts.relations.part_grid import PartGrid
from uniad_ray.experts.relations.reasons import relation_reasons

PAIR = np.array([[0.25, 0.5], [0.75, 0.5]], dtype=np.float32)
GRID = PartGrid(np.array([0.5]), np.array([0.3, 0.6]))
INSTANCES = Instances(("bolt", "nut"), PAIR, np.zeros((2, 4)), np.zeros((2, 3)), np.zeros((2, 8)), ())


def broken(
    attribute: Attribute, kind: str, other: str, value: float, nearest: float, *, cell: int = 0, strength: float = 9.0
) -> Deviation:
    measurement = Measurement(Relation(attribute, kind, other, cell), np.array([[value]]), np.array([[1, 0]]))
    return Deviation(measurement, np.array([[nearest]]), np.array([strength]))


@pytest.mark.parametrize(
    ("deviation", "sentence"),
    [
        (broken("count", "pin", "pin", 1, 2), "2 of pin expected, 1 found"),
        (broken("cell_count", "pin", "pin", 0, 1, cell=4), "1 of pin expected in the cell in row 2, column 2, 0 found"),
        (
            broken("cell_count", "bolt", "bolt", 1.53, 2, cell=2),
            "2 of bolt expected in the cell in row 1, column 3, 1.5 found",
        ),
        (broken("look", "bolt", "bolt", 0, 0), "bolt at row 0.75, column 0.50 looks unlike any in the normal images"),
        (
            broken("look", NO_KIND, NO_KIND, 0, 0),
            "a piece of no known part at row 0.75, column 0.50 looks unlike any in the normal images",
        ),
        (
            broken("colour", "bolt", "bolt", 0, 0),
            "bolt at row 0.75, column 0.50 has a colour not found in the normal images",
        ),
        (
            broken("place", "nut", "nut", 0, 0),
            "nut at row 0.75, column 0.50 is in a place not found in the normal images",
        ),
        (
            broken("row", "nut", "nut", 0, 0),
            "nut at row 0.75, column 0.50 is in a place not found in the normal images",
        ),
        (
            broken("column_step", "bolt", "nut", -0.31, 0.02),
            "nut lies 0.31 left of bolt, 0.02 right of it in the nearest normal image",
        ),
        (
            broken("row_step", "bolt", "nut", 0.3, -0.1),
            "nut lies 0.30 below bolt, 0.10 above it in the nearest normal image",
        ),
        (
            broken("row_step", "nut", "nut", 0.3, 0.0),
            "two of nut lie 0.30 apart down, 0.00 in the nearest normal image",
        ),
        (
            broken("column_step", "nut", "nut", 0.3, 0.6),
            "two of nut lie 0.30 apart across, 0.60 in the nearest normal image",
        ),
        (
            broken("gap", "bolt", "nut", 0.0, 0.2),
            "the gap between bolt and nut is 0.00, 0.20 in the nearest normal image",
        ),
        (
            broken("colour_pair", "bolt", "nut", 0, 0),
            "the colours of bolt and nut never occur together in the normal images",
        ),
        (
            broken("direction", "bolt", "bolt", 0, 0),
            "bolt at row 0.75, column 0.50 has a direction or shape not found in the normal images",
        ),
        (
            broken("direction_pair", "bolt", "bolt", 0, 0),
            "two of bolt differ in direction or shape as in no normal image",
        ),
    ],
)
def test_broken_relation_gives_a_sentence(deviation: Deviation, sentence: str) -> None:
    assert relation_reasons([deviation], INSTANCES, GRID) == [sentence]


def test_most_broken_come_first_without_repeats() -> None:
    found = relation_reasons(
        [
            broken("count", "bolt", "bolt", 1, 2, strength=4.0),
            broken("count", "nut", "nut", 1, 2, strength=8.0),
            broken("count", "nut", "nut", 1, 2, strength=7.0),
            broken("count", "pin", "pin", 1, 2, strength=6.0),
            broken("count", "tray", "tray", 1, 2, strength=5.0),
        ],
        INSTANCES,
        GRID,
    )

    assert found == [f"2 of {kind} expected, 1 found" for kind in ("nut", "pin", "tray")]


def test_usual_relations_give_no_reason() -> None:
    assert relation_reasons([broken("count", "bolt", "bolt", 1, 2, strength=3.0)], INSTANCES, GRID) == []
