"""Names of folders, which every store and every Parquet reader accepts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.archive.naming import dataset_segment, safe_segment, unicode_forms


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


@pytest.mark.parametrize("name", ["bottle", "lid-2", "lid_2", "v1.0", "Ü", "日本", "0"])
def test_plain_names_are_unchanged(name: str) -> None:
    assert safe_segment(name) == dataset_segment(name) == name


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("_lid", "lid"),
        (".lid", "lid"),
        ("#lid", "lid"),
        ("a=b", "a_b"),
        ("a/b", "a_b"),
        ("..", "category"),
        ("", "category"),
        ("???", "category"),
        ("x" * 250, "x" * 240),
        ("é" * 200, "é" * 120),
    ],
)
def test_other_names_get_a_digest(name: str, start: str) -> None:
    assert dataset_segment(name) == f"{start}-{digest(name)}"


@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_name_is_one_visible_segment(name: str) -> None:
    segment = dataset_segment(name)
    assert segment[0] not in "._"
    assert not set(segment) & set("/\\=*?[]:% ")
    assert len(segment.encode()) <= 255


@given(names=st.lists(st.text("ab_. #", max_size=4), unique=True, max_size=20))
def test_different_names_have_different_segments(names: list[str]) -> None:
    assert len({dataset_segment(name) for name in names}) == len(names)
    assert len({safe_segment(name) for name in names}) == len(names)


def test_unicode_forms_of_a_path_differ_by_segment() -> None:
    composed, decomposed = "\u00e4", "a\u0308"
    assert list(unicode_forms("s3://b/a.png")) == ["s3://b/a.png"]
    assert list(unicode_forms(f"{decomposed}/{composed}.png")) == [
        f"{decomposed}/{composed}.png",
        f"{decomposed}/{decomposed}.png",
        f"{composed}/{composed}.png",
        f"{composed}/{decomposed}.png",
    ]
    assert len(list(unicode_forms("/".join([composed] * 30)))) == 64
