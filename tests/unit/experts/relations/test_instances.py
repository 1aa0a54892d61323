from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from uniad_ray.experts.relations.instances import NO_KIND, Instances, describe_instances
from uniad_ray.perception.segments import Segments


def mask_of(top: int, left: int, bottom: int, right: int, side: int = 32) -> np.ndarray:
    """A mask with a filled box, in pixels."""
    mask = np.zeros((side, side), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def described(
    *masks: np.ndarray, image: np.ndarray | None = None, names: tuple[str, ...] = (), most: int = 9
) -> Instances:
    segments = Segments.of(np.stack(masks)).named(names or ("bolt",) * len(masks))
    image = np.zeros((32, 32, 3), dtype=np.uint8) if image is None else image
    return describe_instances(
        segments, [np.zeros((len(segments), 2), dtype=np.float32)], image, ("other", "scrap"), most
    )


def test_place_and_box_equal_a_plain_reference() -> None:
    found = described(mask_of(4, 6, 12, 26), mask_of(20, 2, 28, 10))

    assert len(found) == 2
    np.testing.assert_allclose(found.centres, [[8 / 32, 16 / 32], [24 / 32, 6 / 32]], atol=1e-6)
    np.testing.assert_allclose(found.boxes, np.array([[4, 6, 12, 26], [20, 2, 28, 10]]) / 32)


def test_centre_is_the_mean_pixel() -> None:
    corner = mask_of(0, 0, 8, 2) | mask_of(0, 0, 2, 8)

    (centre,) = described(corner).centres

    # 16 pixels at a mean row of 4 and 12 more at a mean row of 1.
    assert centre == pytest.approx([(16 * 4 + 12 * 1) / 28 / 32] * 2)


def test_colours_are_brightness_and_cielab_a_and_b() -> None:
    image = np.full((32, 32, 3), 128, dtype=np.uint8)
    image[16:24, 16:24] = (255, 0, 0)

    colours = described(mask_of(0, 0, 8, 8), mask_of(16, 16, 24, 24), image=image).colours

    assert colours[0] == pytest.approx([128 / 2.55, 0.0, 0.0], abs=0.1)
    # a and b of sRGB red under D65.
    assert colours[1] == pytest.approx([100 / 3, 80.1, 67.2], abs=0.2)


def test_colour_ignores_overlapping_segments() -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:32] = 255

    found = described(mask_of(8, 0, 24, 32), mask_of(16, 0, 24, 32), image=image)

    assert found.colours[:, 0] == pytest.approx([50.0, 0.0])


def test_names_are_kinds_unless_omitted() -> None:
    names = ("tray", "other", "bolt", "scrap")

    found = described(*(mask_of(0, 0, 10, 10 - step) for step in range(4)), names=names)

    assert found.kinds == ("tray", NO_KIND, "bolt", NO_KIND)


def test_instances_beyond_the_largest_are_counted() -> None:
    masks = (mask_of(0, 0, 9, 9), mask_of(10, 0, 18, 8), mask_of(20, 0, 27, 7), mask_of(20, 20, 26, 26))

    found = described(*masks, names=("bolt", "nut", "nut", "other"), most=2)

    assert (found.kinds, found.further) == (("bolt", "nut"), ("nut", NO_KIND))
    assert (len(found.centres), len(found.vectors[0])) == (2, 2)
    assert found.counts() == {"bolt": 1, "nut": 2}


@settings(max_examples=50, deadline=None)
@given(arrays(bool, st.tuples(st.integers(0, 3), st.just(16), st.just(9))))
def test_any_segments_give_finite_numbers(masks: np.ndarray) -> None:
    segments = Segments.of(masks)
    image = np.full((32, 32, 3), 7, dtype=np.uint8)
    vectors = [np.zeros((len(segments), 2), dtype=np.float32)]

    found = describe_instances(segments.named(["bolt"] * len(segments)), vectors, image, (), 9)

    assert len(found) == len(segments)
    for values, width in ((found.centres, 2), (found.boxes, 4), (found.colours, 3), (found.directions, 8)):
        assert values.shape == (len(found), width)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
