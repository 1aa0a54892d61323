from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.trees import png

from uniad_ray.archive.images import ImageLimits, decode_image
from uniad_ray.archive.images.bit_depth import looks_unshifted, sixteen_bit_peak, unshifted_warning


def encoded(pixels: np.ndarray, format_name: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_name)
    return buffer.getvalue()


def colour_png(peak: int, *, alpha: bool = False) -> bytes:
    """A 16-bit colour PNG, which Pillow cannot write."""
    import struct
    import zlib

    pixel = struct.pack(">HHH", 0, peak, 1) + (b"\xff\xff" if alpha else b"")
    header = struct.pack(">IIBBBBB", 2, 1, 16, 6 if alpha else 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + pixel * 2)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
@pytest.mark.parametrize("peak", [0, 1023, 4095, 65535])
def test_peak_of_grey_images(format_name: str, peak: int) -> None:
    pixels = np.zeros((4, 6), np.uint16)
    pixels[1, 2] = peak
    assert sixteen_bit_peak(encoded(pixels, format_name), ImageLimits()) == peak


@pytest.mark.parametrize("alpha", [False, True])
def test_peak_of_colours_is_exact(alpha: bool) -> None:
    assert sixteen_bit_peak(colour_png(1000, alpha=alpha), ImageLimits()) == 1000
    assert sixteen_bit_peak(colour_png(65535, alpha=alpha), ImageLimits()) == 65535


@pytest.mark.parametrize("data", [png(0), encoded(np.zeros((4, 4), np.uint8), "TIFF"), b"", b"II*\0", b"\x89PNG", b"x"])
def test_other_images_have_none(data: bytes) -> None:
    assert sixteen_bit_peak(data, ImageLimits()) is None
    assert sixteen_bit_peak(encoded(np.zeros((4, 4), np.float32), "TIFF"), ImageLimits()) is None


@given(data=st.binary(max_size=64), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*"]))
def test_any_bytes_have_a_peak_or_none(data: bytes, start: bytes) -> None:
    assert sixteen_bit_peak(start + data, ImageLimits()) in (None, *range(65536))


@pytest.mark.parametrize(
    ("peak", "bits", "top", "levels"),
    [(255, 8, 255, 2), (1000, 10, 1023, 5), (4095, 12, 4095, 17), (16383, 14, 16383, 65)],
)
def test_warning_gives_bits_range_and_levels(peak: int, bits: int, top: int, levels: int) -> None:
    assert looks_unshifted(peak)
    warning = unshifted_warning("part", peak)
    assert warning == (
        f"part: no value of its 16-bit images is above {peak}, as from a camera with {bits} bits. `uniad-ray fit` "
        f"finds this range, and `--set value_range=[0,{top}]` sets it. Bundles of older versions see {levels} grey "
        "levels of them"
    )
    ramp = encoded(np.arange(peak + 1, dtype=np.uint16)[None])
    assert len(np.unique(decode_image(ramp, (1, peak + 1)))) == levels
    in_range = decode_image(ramp, (1, peak + 1), value_range=(0, top))
    assert len(np.unique(in_range)) == min(256, peak + 1) - (peak == 1000) * (255 - int(in_range.max()))


def test_images_that_reach_the_upper_bits_are_fine() -> None:
    assert unshifted_warning("part", 16384) is None
    assert not looks_unshifted(65535)
