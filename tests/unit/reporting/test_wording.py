"""Formats of numbers and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reports import make_metric

from uniad_ray.reporting import wording


@given(st.text(max_size=300), st.integers(3, 50))
def test_external_text_becomes_one_printable_line(text: str, limit: int) -> None:
    shown = wording.visible(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()


def test_unprintable_characters_are_escaped() -> None:
    assert wording.visible("Größe 1/2 <b>") == "Größe 1/2 <b>"
    assert wording.visible("a\n\u202eb") == "a\\n\\u202eb"
    assert wording.visible("folder/" * 30 + "name.png", 30) == "folder/fo…lder/folder/name.png"


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (3.14159, "3.14"), (-0.5, "-0.50"), (12345.678, "1.23e+04"), (1e12, "1e+12")]
)
def test_scores(value: float | None, shown: str) -> None:
    assert wording.score(value) == shown


def test_shares_and_intervals() -> None:
    assert wording.share(3, 40) == "3 of 40 (7.5 %)"
    assert wording.share(0, 0) == "-"
    assert wording.interval(make_metric("image_auroc", 0.9)) == "85.0\N{EN DASH}95.0"
    assert wording.interval(make_metric("image_auroc", None)) == ""


@pytest.mark.parametrize(("value", "shown"), [(4.25, "4.2 s"), (600, "10 min"), (7500, "2 h 05 min")])
def test_seconds(value: float, shown: str) -> None:
    assert wording.seconds(value) == shown


def test_metrics_are_shown_in_their_unit() -> None:
    assert wording.metric_value(make_metric("image_auroc", 0.875)) == "87.5"
    assert wording.interval(make_metric("image_auroc", 0.875)) == "82.5\N{EN DASH}92.5"
    assert wording.metric_value(make_metric("threshold_at_f1_max", 3.25)) == "3.25"
    assert wording.interval(make_metric("threshold_at_f1_max", 3.25)) == "3.20\N{EN DASH}3.30"
    assert wording.metric_value(make_metric("image_auroc", None)) == "-"
