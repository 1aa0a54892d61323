from __future__ import annotations

import difflib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.experts.text.gestalt import GestaltIndex, Match, gestalt_ratio

TEXTS = st.lists(st.text("ab 1:", max_size=12), min_size=1, max_size=12)


def plain_ratio(text: str, query: str) -> float:
    return difflib.SequenceMatcher(None, text, query, autojunk=False).ratio()


def plain_nearest(texts: list[str], query: str) -> Match:
    ratios = [plain_ratio(text, query) for text in texts]
    return Match(ratios.index(max(ratios)), max(ratios))


def description(seed: int) -> str:
    draw = random.Random(seed)  # noqa: S311
    parts = sorted(draw.sample(range(8), 5))
    return "\n".join(
        f"part-{part}: count {draw.randint(1, 3)}; at {draw.choice(['top left', 'middle', 'bottom right'])}"
        for part in parts
    )


@given(st.text(max_size=30), st.text(max_size=30))
def test_ratio_matches_difflib(text: str, query: str) -> None:
    assert gestalt_ratio(text, query) == plain_ratio(text, query)


def test_long_texts_have_no_junk_characters() -> None:
    one, other = "part-1: count 2; " * 20, "part-2: count 1; " * 20

    assert len(one) > 200
    assert gestalt_ratio(one, other) == plain_ratio(one, other)
    assert difflib.SequenceMatcher(None, one, other).ratio() < gestalt_ratio(one, other)


@given(TEXTS, st.text("ab 1:", max_size=12))
def test_nearest_matches_comparing_with_all(texts: list[str], query: str) -> None:
    assert GestaltIndex(texts).nearest(query) == plain_nearest(texts, query)


@pytest.mark.parametrize("seed", range(100, 110))
def test_nearest_description_matches_comparing_with_all(seed: int) -> None:
    texts = [description(number) for number in range(60)]

    assert GestaltIndex(texts).nearest(description(seed)) == plain_nearest(texts, description(seed))


def test_equal_texts_give_the_first_position() -> None:
    assert GestaltIndex(["a", "bc", "bc"]).nearest("bc") == Match(1, 1.0)


def test_empty_index_is_refused() -> None:
    with pytest.raises(ValueError, match="no text to compare with"):
        GestaltIndex([])
