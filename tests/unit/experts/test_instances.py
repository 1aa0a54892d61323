from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from uniad_ray.experts.instances import Instances, describe_instances
from uniad_ray.perception.regions import find_regions

FIELD = torch.arange(2 * 8 * 8, dtype=torch.float32).reshape(2, 8, 8)


def mask_of(*boxes: tuple[int, int, int, int], side: int = 32) -> np.ndarray:
    """A mask with filled boxes: top, left, bottom, right in pixels."""
    mask = np.zeros((side, side), dtype=bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def described(mask: np.ndarray, image: np.ndarray | None = None, *fields: torch.Tensor) -> Instances:
    image = np.zeros((*mask.shape, 3), dtype=np.uint8) if image is None else image
    return describe_instances(find_regions(mask, 0.001, 0.9), mask, image, fields or (FIELD,))


def test_the_share_of_holes_is_part_of_the_shape() -> None:
    mask = mask_of((4, 4, 14, 14)) & ~mask_of((7, 7, 11, 11))

    assert described(mask).shapes[0, 3] == pytest.approx(16 / 100)


def test_place_box_and_axes_equal_a_plain_reference() -> None:
    mask = mask_of((4, 6, 12, 26), (20, 2, 28, 10))

    found = described(mask)

    assert len(found) == 2
    np.testing.assert_allclose(found.centres, [[8 / 32, 16 / 32], [24 / 32, 6 / 32]], atol=1e-6)
    np.testing.assert_allclose(found.boxes, np.array([[4, 6, 12, 26], [20, 2, 28, 10]]) / 32)
    assert np.exp(found.shapes[:, 0]) == pytest.approx([160 / 1024, 64 / 1024])
    # The deviation of a uniform distribution over a side s is s / sqrt(12).
    assert np.exp(found.shapes[0, 1:3]) == pytest.approx(np.array([20, 8]) / 32 / np.sqrt(12), rel=0.01)
    assert found.shapes[:, 3] == pytest.approx([0.0, 0.0])


def test_axes_do_not_depend_on_direction() -> None:
    upright, lying = described(mask_of((4, 8, 24, 16))), described(mask_of((8, 4, 16, 24)))
    tilted = np.zeros((64, 64), dtype=bool)
    row, column = np.indices(tilted.shape) - 32
    tilted[(np.abs(row + column) < 14 * np.sqrt(2)) & (np.abs(row - column) < 6 * np.sqrt(2))] = True

    np.testing.assert_allclose(upright.shapes, lying.shapes, atol=1e-4)
    assert np.exp(described(tilted).shapes[0, 1:3]) == pytest.approx(np.array([28, 12]) / 64 / np.sqrt(12), rel=0.02)


def test_colours_are_brightness_and_cielab_a_and_b() -> None:
    mask = mask_of((0, 0, 8, 8), (16, 16, 24, 24))
    image = np.full((32, 32, 3), 128, dtype=np.uint8)
    image[16:24, 16:24] = (255, 0, 0)

    colours = described(mask, image).colours

    assert colours[0] == pytest.approx([128 / 2.55, 0.0, 0.0], abs=0.1)
    # a and b of sRGB red under D65.
    assert colours[1] == pytest.approx([100 / 3, 80.1, 67.2], abs=0.2)


def test_appearance_is_the_mean_of_each_field_over_the_region() -> None:
    mask = mask_of((0, 0, 8, 8), (16, 16, 24, 20))
    coarse = FIELD[:, :4, :4] ** 2

    found = described(mask, None, FIELD, coarse).appearance

    np.testing.assert_allclose(found[0][0], FIELD[:, 0:2, 0:2].mean(dim=(1, 2)).numpy())
    np.testing.assert_allclose(found[0][1], FIELD[:, 4:6, 4].mean(dim=1).numpy())
    np.testing.assert_allclose(found[1][0], coarse[:, 0, 0].numpy())


def test_memory_layout_of_a_field_does_not_matter() -> None:
    mask = mask_of((0, 0, 9, 7), (16, 13, 24, 20))
    batch = torch.randn((2, 40, 8, 8), generator=torch.Generator().manual_seed(0))
    strided = batch.contiguous(memory_format=torch.channels_last)

    plain, other = described(mask, None, batch[1]), described(mask, None, strided[1])

    assert np.array_equal(plain.appearance[0], other.appearance[0])


@settings(max_examples=50, deadline=None)
@given(arrays(bool, (16, 16)))
def test_any_mask_is_described_in_finite_numbers(mask: np.ndarray) -> None:
    found = described(mask)

    assert found.appearance[0].shape == (len(found), 2)
    for values in (found.centres, found.boxes, found.colours, found.shapes, found.appearance[0]):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
