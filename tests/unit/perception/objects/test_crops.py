from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.perception.objects.crops import object_crops
from uniad_ray.perception.segments import MOST_SEGMENTS, Segments

IMAGE = np.random.default_rng(0).integers(1, 256, (16, 16, 3), dtype=np.uint8)


def crops(*masks: np.ndarray, size: int = 8, padding: float = 0.0, batch: int = 64) -> list[np.ndarray]:
    return list(object_crops(IMAGE, Segments.of(np.array(masks)), size=size, padding=padding, batch=batch))


def mask(top: int, left: int, bottom: int, right: int, side: int = 16) -> np.ndarray:
    found = np.zeros((side, side), dtype=bool)
    found[top:bottom, left:right] = True
    return found


def test_crop_is_mask_times_image() -> None:
    ring = mask(2, 4, 10, 12)
    ring[4:6, 6:8] = False

    ((crop,),) = crops(ring)

    np.testing.assert_array_equal(crop, (IMAGE * ring[..., None])[2:10, 4:12])


def test_box_is_padded_to_a_black_square() -> None:
    ((crop,),) = crops(mask(2, 4, 4, 8), padding=0.5)

    expected = np.zeros((8, 8, 3), dtype=np.uint8)
    expected[3:5, 2:6] = IMAGE[2:4, 4:8]
    np.testing.assert_array_equal(crop, expected)


def test_masks_are_resized_to_the_image() -> None:
    for side in (8, 32):
        quarter = mask(0, 0, side // 2, side // 2, side)
        ((crop,),) = crops(quarter)
        np.testing.assert_array_equal(crop, IMAGE[:8, :8])


@pytest.mark.parametrize("side", [16, 256])
def test_one_pixel_object_has_a_crop(side: int) -> None:
    ((crop,),) = crops(mask(side - 1, 0, side, 1, side), padding=0.1)

    assert (crop == IMAGE[15, 0]).all()


def test_full_image_object_gives_the_image() -> None:
    ((crop,),) = crops(mask(0, 0, 16, 16), size=16)

    np.testing.assert_array_equal(crop, IMAGE)


def test_crops_are_batched_in_segment_order() -> None:
    masks = [mask(number, number, number + 2, number + 2) for number in range(5)]
    batches = crops(*masks, size=2, batch=2)

    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches)[3], IMAGE[3:5, 3:5])


def test_no_objects_and_many_objects() -> None:
    none = Segments.of(np.zeros((0, 16, 16), dtype=bool))
    assert list(object_crops(IMAGE, none, size=8, padding=0.0, batch=64)) == []
    many = crops(*([mask(3, 3, 9, 9)] * 600), batch=100)
    assert sum(map(len, many)) == MOST_SEGMENTS
    assert max(map(len, many)) == 100
