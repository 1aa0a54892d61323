from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from uniad_ray.metrics.map_bins import BINS, map_bins

float16s = st.floats(-65504, 65504, width=16)


@given(hnp.arrays(np.float16, (1, 5), elements=float16s))
def test_bins_keep_the_order_of_values(values: np.ndarray) -> None:
    bins = map_bins(values, values.shape).astype(int)
    value = values.astype(float)
    assert np.array_equal(np.sign(bins - bins.T), np.sign(value - value.T))


def test_only_the_two_zeros_share_a_bin() -> None:
    every = np.arange(BINS, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)][np.newaxis]
    assert np.unique(map_bins(finite, finite.shape)).size == finite.size - 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_map_of_target_size_is_only_rounded(dtype: type) -> None:
    values = np.random.default_rng(0).normal(size=(4, 6)).astype(dtype)
    assert np.array_equal(map_bins(values, (4, 6)), map_bins(values.astype(np.float16), (4, 6)))


@pytest.mark.parametrize("shape", [(32, 48), (5, 3), (8, 40)])
def test_resize_matches_pillow(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float16)
    image = Image.fromarray(values.astype(np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR)
    assert np.array_equal(map_bins(values, shape), map_bins(np.asarray(image).astype(np.float16), shape))


def test_bilinear_by_hand() -> None:
    # Doubled with pixel centres at half-integers, (0, 1) becomes (0, 1/4, 3/4, 1).
    expected = np.array([[0.0, 0.25, 0.75, 1.0]], np.float16)
    assert np.array_equal(map_bins(np.array([[0.0, 1.0]], np.float16), (1, 4)), map_bins(expected, (1, 4)))


@pytest.mark.parametrize(
    "values",
    [
        np.array([[np.nan]], np.float16),
        np.array([[np.inf]], np.float16),
        np.array([[1e6]], np.float32),
        np.zeros((1, 1), np.uint8),
        np.zeros((1, 1, 1), np.float16),
        np.zeros((0, 1), np.float16),
    ],
)
def test_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        map_bins(values, (1, 1))
