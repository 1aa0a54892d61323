from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.perception.text.descriptions import CELLS
from uniad_ray.perception.text.vlm_positions import positions_prompt, read_positions

COUNTS = {"bolt": 2, "nut": 1}


def test_the_prompt_names_classes_and_cells() -> None:
    prompt = positions_prompt({"nut", "bolt"})

    assert "The image shows: bolt, nut.\n" in prompt
    assert all(cell in prompt for cell in CELLS)


def test_well_formed_answer_is_parsed() -> None:
    answer = " bolt : Top Left , bottom right or middle right \n\nnut: middle centre\n"

    assert read_positions(answer, COUNTS) == {
        "bolt": (("top left",), ("middle right", "bottom right")),
        "nut": (("middle centre",),),
    }


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "The bolts are at the top left and the nut in the middle.",
        "bolt: top left",
        "bolt: top left, top left, top left",
        "bolt: top left, north",
        "bolt: top left,",
        "bolt: top left, top right or",
        "bolt: top left, top right\nbolt: top left, top centre",
        "Bolt: top left, top right",
        "washer: top left, top right",
        "bolt top left, top right",
    ],
)
def test_unclear_classes_are_omitted(answer: str) -> None:
    assert read_positions(f"{answer}\nnut: top left", COUNTS) == {"nut": (("top left",),)}


@given(st.text(alphabet="boltnu:, \n") | st.lists(st.sampled_from([*CELLS, "bolt:", ",", " or ", "\n"])).map("".join))
def test_any_answer_gives_valid_positions(answer: str) -> None:
    for name, positions in read_positions(answer, COUNTS).items():
        assert len(positions) == COUNTS[name]
        assert all(position and set(position) <= set(CELLS) for position in positions)
