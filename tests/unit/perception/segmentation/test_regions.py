from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from uniad_ray.perception.segmentation.regions import (
    find_regions,
    region_areas,
    region_overlaps,
    remove_lines,
    split_regions,
)
from uniad_ray.perception.segments import overlaps


def mask_of(*boxes: tuple[int, int, int, int], side: int = 32) -> np.ndarray:
    """A mask with filled boxes: top, left, bottom, right in pixels."""
    mask = np.zeros((side, side), dtype=bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_pieces_are_numbered_and_filtered_by_area() -> None:
    mask = mask_of((2, 2, 8, 8), (14, 2, 19, 7), (2, 12, 30, 30))

    regions = find_regions(mask, 30 / 1024, 300 / 1024)

    assert regions.dtype == np.uint16
    np.testing.assert_array_equal(regions > 0, mask_of((2, 2, 8, 8)))


def test_lines_of_one_pixel_do_not_join_pieces() -> None:
    mask = mask_of((2, 2, 8, 8), (2, 20, 8, 26), (4, 8, 5, 20))

    assert find_regions(mask, 0.001, 0.9).max() == 2


@settings(max_examples=50, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_lines_are_removed_as_by_an_opening(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(remove_lines(mask), ndimage.binary_opening(mask, structure=np.ones((2, 2))))


def test_grain_is_no_region() -> None:
    assert find_regions(mask_of((4, 4, 8, 9)), 0.001, 0.9).max() == 0
    assert find_regions(mask_of((4, 4, 8, 10)), 0.001, 0.9).max() == 1


def test_specks_belong_to_their_region_and_rings_stay_open() -> None:
    ring = mask_of((10, 10, 40, 40), side=64) & ~mask_of((18, 18, 32, 32), side=64)
    speck = mask_of((12, 12, 13, 13), side=64)

    np.testing.assert_array_equal(find_regions(ring & ~speck, 0.001, 0.9) == 1, ring)


def test_ground_along_the_frame_is_no_region() -> None:
    corner, along, cut_off = (0, 0, 12, 12), (0, 20, 4, 60), (30, 0, 60, 8)

    regions = find_regions(mask_of(corner, along, (30, 30, 40, 40), side=64), 0.001, 0.9)

    np.testing.assert_array_equal(regions > 0, mask_of((30, 30, 40, 40), side=64))
    # A part that is cut off by the frame has most of its border inside of the image.
    assert find_regions(mask_of((30, 0, 40, 30), side=64), 0.001, 0.9).max() == 1
    assert find_regions(mask_of(cut_off, side=64), 0.001, 0.9).max() == 0


def test_largest_regions_are_kept() -> None:
    places = [(8 * row + 2, 8 * column + 2, 8 * row + 7, 8 * column + 7) for row in range(5) for column in range(5)]
    mask = mask_of(*places, (42, 10, 48, 16), side=50)

    regions = find_regions(mask, 0.0001, 0.9, most=20)

    assert regions.max() == 20
    assert regions[44, 12] > 0


@given(arrays(bool, (24, 30)), st.integers(1, 6))
def test_areas_equal_those_of_the_label_map(seeds: np.ndarray, most: int) -> None:
    mask = np.kron(seeds, np.ones((4, 4), dtype=bool))
    areas = np.bincount(find_regions(mask, 0.002, 0.5, most).ravel())[1:]
    np.testing.assert_array_equal(region_areas(mask, 0.002, 0.5, most), areas)


def test_overlaps_of_label_maps_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 5, (9, 11)).astype(np.uint16), rng.integers(0, 4, (9, 11))
    one[one == 2] = 0

    found = region_overlaps(one, other)

    expected = overlaps(*(each == np.arange(1, each.max() + 1)[:, None, None] for each in (one, other)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.shape == (4, 3)
    assert not found[1].any()


TWO_THAT_TOUCH = ((4, 2, 14, 12), (8, 12, 10, 16), (4, 16, 14, 26))


def test_touching_pieces_are_cut_at_the_neck() -> None:
    regions = find_regions(mask_of(*TWO_THAT_TOUCH), 0.001, 0.9)

    parts = split_regions(regions, 0.5, 0.01)

    assert regions.max() == 1
    assert parts.max() == 2
    np.testing.assert_array_equal(parts > 0, regions > 0)
    assert (parts[4:14, 2:12] == parts[9, 4]).all()
    assert (parts[4:14, 16:26] == parts[9, 20]).all()


def test_pieces_without_neck_stay_whole_in_order() -> None:
    regions = find_regions(
        mask_of((1, 1, 3, 30), *((top + 10, left, bottom + 10, right) for top, left, bottom, right in TWO_THAT_TOUCH)),
        0.001,
        0.9,
    )

    parts = split_regions(regions, 0.5, 0.01)

    assert regions.max() == 2
    assert parts.max() == 3
    np.testing.assert_array_equal(parts == 1, regions == 1)


@pytest.mark.parametrize(("neck", "smallest"), [(0.0, 0.01), (0.1, 0.01), (0.5, 0.2)])
def test_no_cut_without_neck_or_into_small_parts(neck: float, smallest: float) -> None:
    regions = find_regions(mask_of(*TWO_THAT_TOUCH), 0.001, 0.9)

    np.testing.assert_array_equal(split_regions(regions, neck, smallest), regions)
