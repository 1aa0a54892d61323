from __future__ import annotations

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.perception.segments import MOST_SEGMENTS, Segments, overlaps


def rectangle(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (8, 10)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


SMALL, LARGE, LOW = rectangle(0, 0, 2, 2), rectangle(1, 2, 7, 9), rectangle(6, 0, 8, 2)


def test_segments_are_ordered_by_area_then_position() -> None:
    found = Segments.of(np.stack([LOW, SMALL, np.zeros((8, 10), dtype=bool), LARGE]), np.array([0.1, 0.2, 0.3, 0.4]))

    assert len(found) == 3
    np.testing.assert_array_equal(found.masks(), np.stack([LARGE, SMALL, LOW]))
    np.testing.assert_allclose(found.areas, [42 / 80, 4 / 80, 4 / 80])
    np.testing.assert_allclose(found.boxes[0], [1 / 8, 0.2, 7 / 8, 0.9])
    np.testing.assert_allclose(found.confidences, [0.4, 0.2, 0.1])
    assert found.ids.tolist() == [0, 1, 2]
    assert found.names == ()


def test_masks_take_a_bit_a_pixel() -> None:
    found = Segments.of(np.ones((3, 64, 64), dtype=bool))

    assert found.packed.dtype == np.uint8
    assert found.packed.nbytes == 3 * 64 * 64 // 8


def test_an_image_may_have_no_segment() -> None:
    found = Segments.of(np.zeros((0, 8, 10), dtype=bool))

    assert len(found) == 0
    assert found.masks().shape == (0, 8, 10)
    assert found.boxes.shape == (0, 4)


def test_largest_segments_are_kept() -> None:
    masks = np.zeros((MOST_SEGMENTS + 3, 40, 40), dtype=bool)
    for number, mask in enumerate(masks):
        mask.flat[: number + 1] = True

    found = Segments.of(masks)

    assert len(found) == MOST_SEGMENTS
    assert found.areas.min() == pytest.approx(4 / 1600)


def test_select_keeps_ids_and_names() -> None:
    every = Segments.of(np.stack([SMALL, LARGE, LOW])).named(["tray", "bolt", "nut"])

    found = every.select(np.array([True, False, True]))

    assert found.ids.tolist() == [0, 2]
    assert found.names == ("tray", "nut")
    np.testing.assert_array_equal(found.masks(), np.stack([LARGE, LOW]))


def test_names_follow_their_masks() -> None:
    found = Segments.of(np.stack([LOW, np.zeros((8, 10), dtype=bool), LARGE]), names=["nut", "nothing", "tray"])

    assert found.names == ("tray", "nut")


def test_there_is_a_name_for_each_segment() -> None:
    with pytest.raises(ValueError, match="got 1 names for 2 segments"):
        Segments.of(np.stack([SMALL, LARGE])).named(["bolt"])


def test_inconsistent_arrays_are_rejected() -> None:
    arrays = Segments.of(np.stack([SMALL, LARGE])).arrays()

    for changed, size, names in (
        (arrays | {"areas": arrays["areas"][:1]}, (8, 10), ()),
        (arrays, (8, 100), ()),
        (arrays, (8, 10), ("bolt",)),
    ):
        with pytest.raises(ValueError, match="inconsistent shapes"):
            Segments.restored(changed, size, names)


@given(npst.arrays(bool, st.tuples(st.integers(0, 5), st.integers(1, 9), st.integers(1, 9))))
def test_packed_masks_come_back_as_they_were(masks: np.ndarray) -> None:
    found = Segments.of(masks)

    restored = Segments.restored(found.arrays(), found.size)

    assert sorted(map(bytes, restored.masks())) == sorted(bytes(mask) for mask in masks if mask.any())
    for mask, box in zip(restored.masks(), restored.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        height, width = mask.shape
        np.testing.assert_allclose(
            box, [rows.min() / height, columns.min() / width, (rows.max() + 1) / height, (columns.max() + 1) / width]
        )


def test_overlap_is_intersection_over_union() -> None:
    half = rectangle(1, 2, 4, 9)

    np.testing.assert_allclose(overlaps(np.stack([LARGE, SMALL]), np.stack([half, LARGE])), [[0.5, 1.0], [0.0, 0.0]])
    assert overlaps(np.zeros((1, 2, 2), dtype=bool), np.zeros((1, 2, 2), dtype=bool)).tolist() == [[0.0]]
