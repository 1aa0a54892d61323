from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.experts.text.description_comparison import compare_descriptions, unmatched
from uniad_ray.perception.text.descriptions import CELLS, Description, Position

SIZES = {"bolt": (1.0, 2.0), "nut": (1.0, 1.0), "tray": (10.0, 10.0)}


def differences(found: str, normal: str, *, relaxed: bool = False) -> list[tuple[str, str, float, str]]:
    compared = compare_descriptions(Description.parse(found), Description.parse(normal), SIZES, relaxed=relaxed)
    return [(one.name, one.aspect, one.strength, one.reason) for one in compared]


NORMAL = "2 bolt: top left, top right; 1.50 %\n1 nut: middle centre; 1.00 %"


def test_the_same_description_has_no_difference() -> None:
    assert differences(NORMAL, NORMAL) == []


def test_missing_and_unexpected_classes_are_reported() -> None:
    found = "2 bolt: top left, top right; 1.50 %\n1 tray: bottom left; 10.00 %"

    assert differences(found, NORMAL) == [
        ("nut", "missing", 1.0, "1 of nut expected at middle centre, none found"),
        ("tray", "unexpected", 1.0, "1 of tray found at bottom left, none expected"),
    ]


def test_wrong_count_is_reported_with_the_place() -> None:
    found = "1 bolt: top right; 1.00 %\n2 nut: middle centre, bottom left; 1.00 %"

    assert differences(found, NORMAL) == [
        ("bolt", "count", 1.0, "2 of bolt expected, 1 found (see top left)"),
        ("nut", "count", 1.0, "1 of nut expected, 2 found (see bottom left)"),
    ]


def test_wrong_place_is_reported() -> None:
    found = "2 bolt: top left, bottom right; 1.50 %\n1 nut: middle centre; 1.00 %"

    assert differences(found, NORMAL) == [
        ("bolt", "position", 1.0, "bolt expected at top right, found at bottom right")
    ]


def test_places_near_a_line_match_both_sides() -> None:
    found = "2 bolt: top left or top centre, top centre or top right; 1.50 %\n1 nut: middle centre; 1.00 %"

    assert differences(found, NORMAL) == []


@pytest.mark.parametrize(("size", "strength"), [(2.0, 0.0), (4.0, 1.0), (0.5, 1.0), (2.83, 0.5), (9.0, 1.0)])
def test_size_outside_the_range_counts_by_its_factor(size: float, strength: float) -> None:
    found = differences(f"2 bolt: top left, top right; {size:.2f} %\n1 nut: middle centre; 1.00 %", NORMAL)

    assert [one[:2] for one in found] == ([("bolt", "size")] if strength else [])
    assert sum(one[2] for one in found) == pytest.approx(strength, abs=0.01)


def test_size_is_reported_with_the_normal_range() -> None:
    found = differences("2 bolt: top left, top right; 4.00 %\n1 nut: middle centre; 1.00 %", NORMAL)

    assert found[0][3] == "bolt covers 4.00 % of the image, 1.00 to 2.00 % in normal images"


def test_relaxed_matching_compares_only_categories() -> None:
    found = "1 bolt: bottom left; 9.00 %\n1 tray: bottom left; 10.00 %"

    assert [one[:2] for one in differences(found, NORMAL, relaxed=True)] == [("nut", "missing"), ("tray", "unexpected")]


def test_an_empty_image_lacks_everything() -> None:
    assert [one[:2] for one in differences("", NORMAL)] == [("bolt", "missing"), ("nut", "missing")]


def test_long_lists_of_places_are_truncated() -> None:
    places = ", ".join(CELLS[:5])

    assert differences("", f"5 bolt: {places}; 1.50 %")[0][3] == (
        "5 of bolt expected at top left, top centre, top right, ..., none found"
    )


PLACES = st.lists(st.lists(st.sampled_from(CELLS[:4]), min_size=1, max_size=2, unique=True).map(tuple), max_size=4)


@given(PLACES, PLACES)
def test_pairing_is_maximal(found: list[Position], normal: list[Position]) -> None:
    extra, lacking = unmatched(found, normal)

    short, long = sorted([found, normal], key=len)
    best = max(
        sum(bool(set(one) & set(other)) for one, other in zip(short, order, strict=True))
        for order in itertools.permutations(long, len(short))
    )
    assert len(found) - len(extra) == len(normal) - len(lacking) == best
