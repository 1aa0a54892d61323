from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniad_ray.experts.shared.anomaly_map import anomaly_maps, peak_position


def smoothed_slowly(one: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian truncated at four deviations, with a repeated border, pixel by pixel."""
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    padded = np.pad(one.astype(np.float64), reach, mode="edge")
    out = np.zeros_like(one, dtype=np.float64)
    for row in range(one.shape[0]):
        for column in range(one.shape[1]):
            window = padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
            out[row, column] = weights @ window @ weights
    return out


def test_smoothing_is_a_gaussian_in_map_pixels() -> None:
    grid = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)

    maps = anomaly_maps(grid, 8, 1.3)

    np.testing.assert_allclose(maps[0], smoothed_slowly(grid[0], 1.3), atol=1e-5)


def test_upsampling_is_bilinear_between_cell_centres() -> None:
    maps = anomaly_maps(np.array([[[0.0, 1.0], [0.0, 1.0]]], dtype=np.float32), 4, 0.0)

    assert maps[0].tolist() == [[0.0, 0.25, 0.75, 1.0]] * 4


def test_larger_grid_keeps_its_peaks() -> None:
    # 5 x 6 cells onto 2 x 4 pixels: a pixel takes rows 0 to 2 or 2 to 4, and the columns that it touches.
    grid = np.zeros((1, 5, 6), dtype=np.float32)
    grid[0, 1, 0], grid[0, 2, 3], grid[0, 4, 5] = 1.0, 2.0, 3.0

    assert anomaly_maps(grid, 4, 0.0).shape == (1, 4, 4)
    assert anomaly_maps(grid[:, :, :2], 2, 0.0)[0].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert anomaly_maps(grid, 2, 0.0)[0].tolist() == [[1.0, 2.0], [0.0, 3.0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 127), st.integers(0, 159))
def test_every_cell_of_a_large_grid_is_in_the_map(row: int, column: int) -> None:
    grid = np.zeros((1, 128, 160), dtype=np.float32)
    grid[0, row, column] = 1.0

    one = anomaly_maps(grid, 64, 0.0)[0]

    assert one[row * 64 // 128, column * 64 // 160] == 1.0
    assert np.count_nonzero(one) <= 2


def test_non_finite_cell_of_a_large_grid_stays() -> None:
    grid = np.zeros((1, 8, 8), dtype=np.float32)
    grid[0, 3, 3] = np.nan

    assert np.isnan(anomaly_maps(grid, 4, 0.0)[0]).sum() == 1


@settings(deadline=None)
@given(st.just(0.0) | st.floats(0.0078125, 100.0, width=32), st.floats(0.0, 5.0))
def test_constant_grid_stays_constant(value: float, smoothing: float) -> None:
    maps = anomaly_maps(np.full((1, 3, 5), value, dtype=np.float32), 16, smoothing)

    np.testing.assert_allclose(maps, value, rtol=1e-5)


def test_maps_do_not_leak_into_each_other() -> None:
    grids = np.random.default_rng(0).random((5, 4, 4)).astype(np.float32)

    together = anomaly_maps(grids, 16, 2.0)

    for row in range(5):
        assert np.array_equal(together[row], anomaly_maps(grids[row : row + 1], 16, 2.0)[0])


def test_no_images_give_no_maps() -> None:
    assert anomaly_maps(np.zeros((0, 4, 4), dtype=np.float32), 16, 2.0).shape == (0, 16, 16)


def test_peak_is_a_fraction_of_the_image() -> None:
    one = np.zeros((4, 8))
    one[1, 6] = 1.0

    assert peak_position(one) == pytest.approx((0.375, 0.8125))
