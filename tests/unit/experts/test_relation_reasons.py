from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.experts.instances import Instances
from uniad_ray.experts.part_grid import PartGrid
from uniad_ray.experts.relation_bank import Attribute, Deviation, Measurement, Relation
from uniad_ray.experts.relation_reasons import relation_reasons
from uniad_ray.perception.object_kinds import NO_KIND

PAIR = np.array([[0.25, 0.5], [0.75, 0.5]], dtype=np.float32)
GRID = PartGrid(np.array([0.5]), np.array([0.3, 0.6]))
INSTANCES = Instances(PAIR, np.zeros((2, 4)), np.zeros((2, 3)), np.zeros((2, 4)), ())


def broken(
    attribute: Attribute, kind: int, other: int, value: float, nearest: float, strength: float = 9.0
) -> Deviation:
    measurement = Measurement(Relation(attribute, kind, other), np.array([[value]]), np.array([[1, 0]]))
    return Deviation(measurement, np.array([[nearest]]), np.array([strength]))


@pytest.mark.parametrize(
    ("deviation", "sentence"),
    [
        (broken("count", 2, 2, 1, 2), "2 of part 3 expected, 1 found"),
        (broken("cell_count", 2, 4, 0, 1), "1 of part 3 expected in the cell in row 2, column 2, 0 found"),
        (broken("cell_count", 0, 2, 1.53, 2), "2 of part 1 expected in the cell in row 1, column 3, 1.5 found"),
        (broken("look", 0, 0, 0, 0), "part 1 at row 0.75, column 0.50 looks as in no normal image"),
        (
            broken("look", NO_KIND, NO_KIND, 0, 0),
            "a piece of no known part at row 0.75, column 0.50 looks as in no normal image",
        ),
        (broken("colour", 0, 0, 0, 0), "part 1 at row 0.75, column 0.50 has a colour as in no normal image"),
        (broken("place", 1, 1, 0, 0), "part 2 at row 0.75, column 0.50 stands where it does in no normal image"),
        (broken("row", 1, 1, 0, 0), "part 2 at row 0.75, column 0.50 stands where it does in no normal image"),
        (
            broken("column_step", 0, 1, -0.31, 0.02),
            "part 2 lies 0.31 left of part 1, 0.02 right of it in the nearest normal image",
        ),
        (
            broken("row_step", 0, 1, 0.3, -0.1),
            "part 2 lies 0.30 below part 1, 0.10 above it in the nearest normal image",
        ),
        (broken("row_step", 1, 1, 0.3, 0.0), "two of part 2 lie 0.30 apart down, 0.00 in the nearest normal image"),
        (
            broken("column_step", 1, 1, 0.3, 0.6),
            "two of part 2 lie 0.30 apart across, 0.60 in the nearest normal image",
        ),
        (
            broken("gap", 0, 1, 0.0, 0.2),
            "the gap between part 1 and part 2 is 0.00, 0.20 in the nearest normal image",
        ),
        (broken("colour_pair", 0, 1, 0, 0), "the colours of part 1 and part 2 go together in no normal image"),
    ],
)
def test_a_broken_relation_is_said_in_a_sentence(deviation: Deviation, sentence: str) -> None:
    assert relation_reasons([deviation], INSTANCES, GRID) == [sentence]


def test_the_most_broken_come_first_and_none_comes_twice() -> None:
    found = relation_reasons(
        [
            broken("count", 0, 0, 1, 2, strength=4.0),
            broken("count", 1, 1, 1, 2, strength=8.0),
            broken("count", 1, 1, 1, 2, strength=7.0),
            broken("count", 2, 2, 1, 2, strength=6.0),
            broken("count", 3, 3, 1, 2, strength=5.0),
        ],
        INSTANCES,
        GRID,
    )

    assert found == [f"2 of part {part} expected, 1 found" for part in (2, 3, 4)]


def test_what_is_usual_is_no_reason() -> None:
    assert relation_reasons([broken("count", 0, 0, 1, 2, strength=3.0)], INSTANCES, GRID) == []
