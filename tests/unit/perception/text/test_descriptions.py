from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.descriptions import (
    CELLS,
    ClassDescription,
    Description,
    check_class_name,
    describe_segments,
    soft_position,
)


def square(row: float, column: float, side: int = 10) -> np.ndarray:
    mask = np.zeros((100, 100), dtype=bool)
    top, left = int(row * 100) - side // 2, int(column * 100) - side // 2
    mask[top : top + side, left : left + side] = True
    return mask


def test_description_by_class() -> None:
    segments = Segments.of(np.stack([square(0.1, 0.5), square(0.8, 0.9), square(0.5, 0.5, 20)]))

    found = describe_segments(segments.named(["tray", "bolt", "bolt"]), 0.05)

    assert str(found) == "2 bolt: top centre, bottom right; 2.00 %\n1 tray: middle centre; 4.00 %"


def test_objects_that_overlap_cover_the_image_once() -> None:
    segments = Segments.of(np.stack([square(0.5, 0.5, 20), square(0.5, 0.5)]))

    assert describe_segments(segments.named(["bolt", "bolt"]), 0.05).classes[0].size == 4.0


def test_no_objects_give_an_empty_description() -> None:
    found = describe_segments(Segments.of(np.zeros((0, 10, 10), dtype=bool)), 0.05)

    assert str(found) == ""
    assert Description.parse("") == found


def test_position_near_a_line_is_on_both_sides() -> None:
    assert soft_position(0.1, 0.5, 0.05) == ("top centre",)
    assert soft_position(0.31, 0.5, 0.05) == ("top centre", "middle centre")
    assert soft_position(0.31, 0.64, 0.05) == ("top centre", "top right", "middle centre", "middle right")
    assert soft_position(0.31, 0.64, 0.0) == ("top centre",)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-0.04, 0.04), st.floats(-0.04, 0.04))
def test_small_move_keeps_a_common_cell(row: float, column: float, down: float, across: float) -> None:
    assert set(soft_position(row, column, 0.03)) & set(soft_position(row + down, column + across, 0.03))


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\n:;", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1
)
PLACES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda place: soft_position(*place, 0.05))


@given(
    st.dictionaries(NAMES.filter(str.strip), st.tuples(st.lists(PLACES, min_size=1, max_size=4), st.integers(0, 10000)))
)
def test_the_canonical_text_can_be_read_back(classes: dict[str, tuple[list[tuple[str, ...]], int]]) -> None:
    description = Description(
        tuple(
            ClassDescription(check_class_name(name), len(places), tuple(places), size / 100)
            for name, (places, size) in sorted(classes.items())
        )
    )

    assert Description.parse(str(description)) == description


@pytest.mark.parametrize(
    "text",
    [
        "bolt",
        "2 bolt: top left; 1.00 %",
        "1 bolt: upper left; 1.00 %",
        "1 bolt: top left; 1 %",
        "1 nut: top left; 1.00 %\n1 bolt: top left; 1.00 %",
        "1 nut: top left; 1.00 %\n1 nut: top left; 1.00 %",
        "1 nut: top left; 1.00 %\n",
    ],
)
def test_non_canonical_texts_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="not"):
        Description.parse(text)


@pytest.mark.parametrize("name", ["", "  ", "a:b", "a;b", "a\nb"])
def test_a_name_must_fit_into_a_line(name: str) -> None:
    with pytest.raises(ValueError, match="is not a class name"):
        check_class_name(name)


def test_cells_are_in_reading_order() -> None:
    assert CELLS[:4] == ("top left", "top centre", "top right", "middle left")
