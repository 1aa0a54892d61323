from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.archive.scenes.shading import shade

LIGHT = (0.6, 0.8)


def plane(value: float) -> np.ndarray:
    return np.full((2, 3), value, dtype=np.float32)


def test_level_ground_has_brightness_one() -> None:
    found = shade(plane(0), plane(0), 30.0, LIGHT)

    np.testing.assert_allclose(found.diffuse, 1.0)
    # The half vector is (0.6, 1.8) / sqrt(3.6); its vertical part to the power of 24.
    np.testing.assert_allclose(found.highlight, (0.9) ** 12, rtol=1e-5)


@pytest.mark.parametrize(("azimuth", "slope_y", "slope_x"), [(0.0, 0.0, -0.75), (90.0, 0.75, 0.0)])
def test_a_slope_that_faces_the_light_is_brightest(azimuth: float, slope_y: float, slope_x: float) -> None:
    facing = shade(plane(slope_y), plane(slope_x), azimuth, LIGHT)
    away = shade(plane(-slope_y), plane(-slope_x), azimuth, LIGHT)

    # The slope of 0.75 is at a right angle to the light: its cosine is 1, that of level ground 0.8.
    np.testing.assert_allclose(facing.diffuse, 1 / 0.8, rtol=1e-5)
    assert away.diffuse.max() < 1.0
