from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.archive.scenes.products.model import Part, View


def view(turn: float, zoom: float, shift: tuple[float, float] = (0.0, 0.0)) -> View:
    return View(shift=shift, turn=turn, zoom=zoom, exposure=1.0, tint=(1.0, 1.0, 1.0), azimuth=0.0, noise=1.0)


def test_a_quarter_turn_about_the_middle() -> None:
    part = Part(0, x=150.0, y=40.0, angle=10.0, path=((100.0, 40.0), (150.0, 50.0)), radius=3.0)
    seen = view(90.0, 2.0, (5.0, -1.0)).seen(part, (80, 200))
    # 50 to the right of the middle becomes 100 below it.
    assert (seen.x, seen.y) == pytest.approx((105.0, 139.0))
    assert (seen.angle, seen.scale, seen.radius) == (100.0, 2.0, 6.0)
    assert seen.path == (pytest.approx((105.0, 39.0)), pytest.approx((85.0, 139.0)))


def test_origins_invert_what_is_seen() -> None:
    camera, shape = view(3.0, 1.03, (4.0, -2.5)), (60, 90)
    x, y = camera.origins(shape)
    for row, column in ((0, 0), (59, 89), (20, 70)):
        seen = camera.seen(Part(0, x=float(x[row, column]), y=float(y[row, column])), shape)
        assert (seen.x, seen.y) == pytest.approx((column + 0.5, row + 0.5), abs=1e-3)
    assert np.shape(x) == np.shape(y) == shape
