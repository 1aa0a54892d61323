from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from uniad_ray.pipelines.evaluate import join_masks
from uniad_ray.pipelines.score_chunk import decode_map, encode_map


def encoded(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def test_masks_are_joined_whatever_their_grey_values() -> None:
    first = np.array([[0, 1, 0], [0, 0, 0]], dtype=np.uint8)
    second = np.array([[0, 254, 0], [7, 0, 0]], dtype=np.uint8)
    joined = join_masks([encoded(first), encoded(second)], 2, 3)
    assert joined is not None
    assert joined.tolist() == [[False, True, False], [True, False, False]]


def test_a_mask_of_another_size_or_damaged_is_not_guessed_at() -> None:
    mask = encoded(np.ones((2, 3), dtype=np.uint8))
    assert join_masks([mask], 3, 2) is None
    assert join_masks([mask, b"nonsense"], 2, 3) is None


@given(arrays(np.float32, (3, 5), elements=st.floats(-1e6, 1e6, width=32)))
def test_a_map_comes_back_as_float16_clipped_to_its_range(anomaly_map: np.ndarray) -> None:
    restored = decode_map(encode_map(anomaly_map), 3, 5)
    assert restored.dtype == np.float16
    assert np.isfinite(restored).all()
    np.testing.assert_array_equal(restored, np.clip(anomaly_map, -65504, 65504).astype(np.float16))


def test_a_map_is_stored_little_endian_row_by_row() -> None:
    assert encode_map(np.array([[1.0, -2.0]], dtype=np.float32)) == bytes([0x00, 0x3C, 0x00, 0xC0])
    with pytest.raises(ValueError, match="reshape"):
        decode_map(b"\0\0", 1, 2)
