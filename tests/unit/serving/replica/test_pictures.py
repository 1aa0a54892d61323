"""Pictures of uploads with 16 bits a channel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from support.image_bytes import encode

from uniad_ray.archive.images import DEFAULT_LIMITS
from uniad_ray.config.value_range import ValueRange
from uniad_ray.serving.replica.pictures import sixteen_bit_picture


@pytest.mark.parametrize(("value_range", "expected"), [((0, 4095), 128), ((1024, 3072), 128), (None, 8)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_shown_in_the_range(kind: str, value_range: ValueRange | None, expected: int) -> None:
    data = encode(np.full((30, 40), 2048, np.uint16), kind)
    picture = sixteen_bit_picture(data, DEFAULT_LIMITS, value_range)
    assert picture is not None
    with Image.open(io.BytesIO(picture)) as shown:
        assert (shown.format, shown.size) == ("JPEG", (40, 30))
        assert np.asarray(shown).mean() == pytest.approx(expected, abs=1)


def test_large_image_is_reduced() -> None:
    picture = sixteen_bit_picture(encode(np.zeros((100, 2048), np.uint16), "PNG"), DEFAULT_LIMITS, (0, 4095))
    assert picture is not None
    with Image.open(io.BytesIO(picture)) as shown:
        assert shown.size == (1024, 50)


def test_eight_bits_need_no_picture() -> None:
    assert sixteen_bit_picture(encode(np.zeros((4, 4), np.uint8), "PNG"), DEFAULT_LIMITS, (0, 4095)) is None
