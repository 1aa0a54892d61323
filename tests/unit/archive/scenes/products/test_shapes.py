from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniad_ray.archive.scenes.products.shapes import FAMILIES, REACH, Outline, digit, draw_outline, likeness


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 2**32 - 1))
def test_outlines_lie_within_reach(family: str, seed: int) -> None:
    outline = draw_outline(np.random.default_rng(seed), family)
    axis = np.linspace(-2 * REACH, 2 * REACH, 161, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    inside = outline.distance(u, v) < 0
    assert inside.any()
    assert np.abs(u[inside]).max() <= REACH
    assert np.abs(v[inside]).max() <= REACH
    assert np.hypot(u[inside], v[inside]).max() <= outline.radius() + 0.06


def test_area_and_radius_of_a_disc() -> None:
    disc = Outline("disc", (0.0,) * 6)
    assert disc.area() == pytest.approx(np.pi, rel=0.01)
    assert disc.radius() == pytest.approx(1.0, abs=0.02)


def test_likeness_is_that_of_the_best_turn() -> None:
    bar, disc = Outline("bar", (0.2, 0.2, 0, 0, 0, 0)), Outline("disc", (0.0,) * 6)
    tee = Outline("tee", (0.5,) * 6)
    assert likeness(bar, bar) == 1.0
    assert likeness(bar, disc) < 0.6
    assert likeness(bar, tee) == pytest.approx(likeness(tee, bar), abs=0.05)


@pytest.mark.parametrize(
    ("outline", "turn"),
    [
        (Outline("disc", (0.0,) * 6), None),
        (Outline("star", (0.99, 0.5, 0, 0, 0, 0)), None),
        (Outline("cross", (0.5,) * 6), None),
        (Outline("bar", (0.2, 0.2, 0, 0, 0, 0)), 90.0),
        (Outline("tee", (0.2,) * 6), 180.0),
        (Outline("ell", (0.2, 0.5, 0, 0, 0, 0)), 180.0),
    ],
    ids=lambda value: getattr(value, "family", str(value)),
)
def test_visible_turn(outline: Outline, turn: float | None) -> None:
    assert outline.visible_turn() == turn


def test_digits_differ() -> None:
    drawn = [digit(value).inside() for value in range(10)]
    assert all((one ^ two).sum() > 50 for index, one in enumerate(drawn) for two in drawn[:index])
    # An eight has all seven segments.
    assert all(not (one & ~drawn[8]).any() for one in drawn)
