from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.perception.segmentation.regions import MOST_REGIONS, find_regions, split_regions


def mask_of(*boxes: tuple[int, int, int, int], side: int = 32) -> np.ndarray:
    """A mask with filled boxes: top, left, bottom, right in pixels."""
    mask = np.zeros((side, side), dtype=bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_pieces_are_numbered_and_filtered_by_area() -> None:
    mask = mask_of((2, 2, 6, 6), (10, 2, 12, 4), (2, 12, 30, 30))

    regions = find_regions(mask, 10 / 1024, 400 / 1024)

    assert regions.dtype == np.uint8
    np.testing.assert_array_equal(regions > 0, mask_of((2, 2, 6, 6)))


def test_lines_of_one_pixel_do_not_join_pieces() -> None:
    mask = mask_of((2, 2, 8, 8), (2, 20, 8, 26), (4, 8, 5, 20))

    assert find_regions(mask, 0.001, 0.9).max() == 2


def test_holes_belong_to_their_piece() -> None:
    mask = mask_of((4, 4, 14, 14)) & ~mask_of((7, 7, 11, 11))

    np.testing.assert_array_equal(find_regions(mask, 0.001, 0.9) == 1, mask_of((4, 4, 14, 14)))


def test_largest_pieces_are_kept() -> None:
    boxes = [(6 * row, 6 * column, 6 * row + 3, 6 * column + 3) for row in range(7) for column in range(7)]
    mask = mask_of(*boxes, (42, 0, 47, 5), side=48)

    regions = find_regions(mask, 0.0001, 0.9)

    assert regions.max() == MOST_REGIONS
    assert regions[44, 2] > 0


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
