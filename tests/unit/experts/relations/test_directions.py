from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from uniad_ray.experts.relations.directions import SYMMETRIES, directions


def tee(side: int = 60) -> np.ndarray:
    """A capital T: bool, shape (side, side)."""
    mask = np.zeros((side, side), dtype=bool)
    mask[10:20, 10:50] = True
    mask[20:50, 26:34] = True
    return mask


def moments(mask: np.ndarray) -> np.ndarray:
    pairs = directions(mask[None])[0]
    return np.asarray(pairs[::2] + 1j * pairs[1::2])


def test_a_turn_multiplies_each_moment_by_its_phase() -> None:
    # A quarter turn against the clock.
    quarter = np.array([1j**symmetry for symmetry in SYMMETRIES])

    np.testing.assert_allclose(moments(np.rot90(tee())), quarter * moments(tee()), atol=1e-6)


def test_place_and_size_do_not_matter() -> None:
    moved = np.roll(tee(), (5, -7), axis=(0, 1))
    large = np.kron(tee(), np.ones((4, 4), dtype=bool))

    np.testing.assert_allclose(moments(moved), moments(tee()), atol=1e-6)
    np.testing.assert_allclose(moments(large), moments(tee()), atol=0.01)


def test_a_line_of_four_pixels_by_hand() -> None:
    mask = np.zeros((1, 4), dtype=bool)
    mask[0, [0, 1, 3]] = True
    # Places -4/3, -1/3 and 5/3.
    square, cubes = (16 + 1 + 25) / 9, (-64 - 1 + 125) / 27

    expected = [(-16 - 1 + 25) / 9 / square, 1.0, cubes / ((64 + 1 + 125) / 27), 1.0]
    np.testing.assert_allclose(moments(mask), expected, atol=1e-6)


def test_a_disc_has_no_direction() -> None:
    down, across = np.indices((61, 61)) - 30

    assert np.abs(directions((down**2 + across**2 <= 25**2)[None])).max() < 0.02


@given(arrays(bool, st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 6))))
def test_any_masks_give_moments_of_at_most_one(masks: np.ndarray) -> None:
    found = directions(masks)

    assert found.shape == (len(masks), 8)
    assert found.dtype == np.float32
    assert np.hypot(found[:, ::2], found[:, 1::2]).max(initial=0.0) <= 1.0 + 1e-5


def test_no_pixels_or_one_pixel_have_no_direction() -> None:
    masks = np.zeros((2, 3, 3), dtype=bool)
    masks[1, 1, 1] = True

    assert directions(masks) == pytest.approx(np.zeros((2, 8)))
