"""Scheduling of tests: groups that share a slow start run in one process, the longest first."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scheduling import TOGETHER, group_of, longest_first

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("place", [place for places in TOGETHER.values() for place in places])
def test_grouped_files_exist(place: str) -> None:
    assert (ROOT / place).exists()


def test_group_defaults_to_the_file() -> None:
    assert group_of("tests/pipelines/test_fit_score.py::test_one") == "pipelines"
    assert group_of("tests/unit/test_cli.py::test_one[a::b]") == "tests/unit/test_cli.py"


def test_groups_come_first_in_order() -> None:
    given = [
        "tests/unit/b.py::x",
        "tests/parity/test_parity.py::x",
        "tests/unit/a.py::x",
        "tests/pipelines/test_a.py::x",
    ]
    assert longest_first(given) == [3, 1, 0, 2]
