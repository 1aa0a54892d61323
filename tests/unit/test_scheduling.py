"""Tests that share what takes long to start go to one process, the longest first."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scheduling import TOGETHER, group_of, longest_first

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("place", [place for places in TOGETHER.values() for place in places])
def test_every_place_of_a_group_is_there(place: str) -> None:
    assert (ROOT / place).exists()


def test_a_test_goes_with_its_group_or_its_file() -> None:
    assert group_of("tests/pipelines/test_fit_score.py::test_one") == "pipelines"
    assert group_of("tests/unit/test_cli.py::test_one[a::b]") == "tests/unit/test_cli.py"


def test_groups_come_as_they_are_listed_and_the_rest_stays_in_order() -> None:
    given = [
        "tests/unit/b.py::x",
        "tests/parity/test_parity.py::x",
        "tests/unit/a.py::x",
        "tests/pipelines/test_a.py::x",
    ]
    assert longest_first(given) == [3, 1, 0, 2]
