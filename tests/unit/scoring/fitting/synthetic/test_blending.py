from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.scoring.fitting.synthetic.blending import blend, border, bounds, grown, mismatch, shifted

MASK = np.zeros((40, 50), dtype=bool)
MASK[12:28, 15:33] = True


def test_blended_pixels_have_the_light_of_their_surroundings() -> None:
    """A pattern on an image that is darker by 30 levels comes out as it would look in the brighter one."""
    columns = np.linspace(100, 140, 50)
    bright = np.repeat(np.rint(np.tile(columns, (40, 1)))[..., None], 3, axis=2).astype(np.uint8)
    pattern = np.random.default_rng(0).integers(-10, 11, (40, 50, 1))
    inside = np.zeros((40, 50, 1), dtype=int)
    inside[16:24, 19:29] = pattern[16:24, 19:29]
    dark = (bright.astype(int) - 30 + inside).astype(np.uint8)

    found = blend(bright, dark, MASK)

    assert found is not None
    np.testing.assert_array_equal(found[~MASK], bright[~MASK])
    np.testing.assert_allclose(found.astype(int), bright + inside, atol=2)


def test_light_is_interpolated_between_the_sides() -> None:
    target = np.zeros((40, 50, 3), dtype=np.uint8)
    target[:, 24:] = 20
    found = blend(target, np.full((40, 50, 3), 60, dtype=np.uint8), MASK)
    assert found is not None
    row = found[20, 15:33, 0].astype(int)
    assert (np.diff(row[1:-1]) >= 0).all()
    assert row[1] <= 4
    assert row[-2] >= 16


def test_a_part_at_the_border_says_nothing_about_the_light() -> None:
    ground = np.full((40, 50, 3), 100, dtype=np.uint8)
    target = ground.copy()
    target[10:12, 15:20] = 250
    found = blend(target, ground, MASK)
    assert found is not None
    np.testing.assert_array_equal(found[14:26, 17:31], ground[14:26, 17:31])


def test_mask_of_the_whole_image_has_no_border() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    assert blend(image, image, np.ones((8, 8), dtype=bool)) is None


def test_border_is_around_the_mask() -> None:
    places = border(MASK)
    near = grown(MASK, 2) & ~MASK
    assert near[places[:, 0], places[:, 1]].all()
    assert len(places) == min(near.sum(), 300)


@pytest.mark.parametrize("step", [(0, 0), (3, -5), (-7, 2), (60, 0)])
def test_shift_is_that_of_numpy_without_wrapping(step: tuple[int, int]) -> None:
    array = np.random.default_rng(1).integers(1, 9, (12, 15, 3))
    expected = np.zeros_like(array)
    for row in range(12):
        for column in range(15):
            if 0 <= row + step[0] < 12 and 0 <= column + step[1] < 15:
                expected[row + step[0], column + step[1]] = array[row, column]
    np.testing.assert_array_equal(shifted(array, step), expected)


def test_bounds_and_growth() -> None:
    assert bounds(MASK, 3) == (slice(9, 31), slice(12, 36))
    corner = np.zeros((5, 5), dtype=bool)
    corner[0, 0] = True
    assert bounds(corner, 2) == (slice(0, 3), slice(0, 3))
    assert np.argwhere(grown(corner, 1)).tolist() == [[0, 0], [0, 1], [1, 0]]
    assert not grown(np.zeros((5, 5), dtype=bool), 2).any()


def test_mismatch_forgives_a_common_difference() -> None:
    colours = np.random.default_rng(2).integers(0, 200, (50, 3)).astype(np.uint8)
    assert mismatch(colours, colours) == 0.0
    assert mismatch(colours, colours + 10) == pytest.approx(3.0)
    assert mismatch(colours, colours[::-1]) > 20.0
