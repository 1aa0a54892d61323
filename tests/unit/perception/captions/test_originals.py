from __future__ import annotations

import io

import numpy as np
from PIL import Image

from uniad_ray.perception.base import Perception
from uniad_ray.perception.captions.originals import original_images

STRETCHED = np.zeros((3, 8, 8, 3), dtype=np.uint8)
WIDE = np.random.default_rng(0).integers(0, 256, (10, 40, 3), dtype=np.uint8)


def encoded(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_originals_keep_size_and_aspect_ratio() -> None:
    perception = Perception(["a", "b", "c"], STRETCHED, originals={"a": encoded(WIDE), "b": WIDE})

    first, second, third = original_images(perception, 64)
    np.testing.assert_array_equal(first, WIDE)
    np.testing.assert_array_equal(second, WIDE)
    np.testing.assert_array_equal(third, STRETCHED[2])  # an altered copy has no original
    assert [image.shape for image in original_images(perception, 20)] == [(5, 20, 3), (5, 20, 3), (8, 8, 3)]


def test_originals_are_not_decoded_for_stored_captions() -> None:
    perception = Perception(["a"], STRETCHED[:1], originals={"a": b"no image"})
    (image,) = original_images(perception, None)
    np.testing.assert_array_equal(image, STRETCHED[0])
