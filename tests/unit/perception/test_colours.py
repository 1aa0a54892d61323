from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.perception.colours import cielab


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((10, 10, 12), (2.79, 0.294, -0.801)),  # by hand: the linear part of both curves
    ],
)
def test_published_values(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(cielab(np.array(rgb, dtype=np.uint8)), lab, atol=0.03)


def test_greys_have_no_colour_and_ascend() -> None:
    greys = cielab(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1))

    np.testing.assert_allclose(greys[:, 1:], 0.0, atol=1e-3)
    assert (np.diff(greys[:, 0]) > 0).all()


def test_any_shape_is_kept() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)

    found = cielab(image)

    assert (found.shape, found.dtype) == ((5, 7, 3), np.float32)
    np.testing.assert_array_equal(found[2, 3], cielab(image[2, 3]))
