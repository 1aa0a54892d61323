from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from uniad_ray.archive.scenes.damage import Surface
from uniad_ray.archive.scenes.products.flaws import TOLERANCE, draw_flaw
from uniad_ray.archive.scenes.products.model import Flaw


def surface(grey: float, shape: tuple[int, int] = (260, 300)) -> Surface:
    return Surface(np.full((*shape, 3), grey, np.float32), np.zeros(shape, np.float32), np.full(shape, 0.2, np.float32))


@settings(max_examples=60, deadline=None)
@example(Flaw.STAIN, 0.015625, 0.25, 247353053)
@given(st.sampled_from(list(Flaw)), st.floats(0.001, 0.02), st.floats(0.02, 0.8), st.integers(0, 2**32 - 1))
def test_a_flaw_has_its_area_and_shows(flaw: Flaw, share: float, grey: float, seed: int) -> None:
    drawn = surface(grey)
    within = np.ones(drawn.height.shape, np.bool_)
    mask = draw_flaw(drawn, flaw, share * within.size, within, np.random.default_rng(seed))
    assert mask is not None
    assert mask.sum() == pytest.approx(share * within.size, rel=TOLERANCE)
    change = np.abs(drawn.albedo ** (1 / 2.2) - np.float32(grey) ** (1 / 2.2)).max(axis=2)
    # The mask is where a flaw changes the brightness by 40 % of its largest change, or more.
    assert change.max() > (0.19 if flaw is Flaw.DENT else 0.115)
    assert change[mask].mean() > 0.05
    assert mask[change > 0.8 * change.max()].mean() > 0.9


def test_a_flaw_keeps_within_its_part() -> None:
    y, x = np.mgrid[:260, :300]
    within = np.hypot(y - 130, x - 150) < 60
    for flaw in Flaw:
        drawn = surface(0.4)
        mask = draw_flaw(drawn, flaw, 900.0, within, np.random.default_rng(3))
        assert mask is not None
        assert not mask[~within].any()
        assert (drawn.albedo[~within] == np.float32(0.4)).all()
        assert (drawn.height[~within] == 0).all()


def test_a_flaw_that_does_not_fit_changes_nothing() -> None:
    within = np.zeros((260, 300), np.bool_)
    within[100:110, 100:110] = True
    drawn = surface(0.4)
    assert draw_flaw(drawn, Flaw.STAIN, 900.0, within, np.random.default_rng(0)) is None
    assert (drawn.albedo == np.float32(0.4)).all()
