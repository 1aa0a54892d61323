"""16-bit images: all bits are read, and 8 bits come last."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from support.image_bytes import SCENE, WHOLE, encode, kind_of, oriented, png_chunk, raw_png

from uniad_ray.archive.images import DEFAULT_LIMITS, decode_image, stretch_image, stretch_values
from uniad_ray.archive.images.sixteen_bits import file_has_sixteen_bits, read_sixteen_bits
from uniad_ray.errors import ImageError

TWELVE_BITS = (0, 4095)
VALUES = np.random.default_rng(0).integers(0, 65536, (7, 5, 4), dtype=np.uint16)


def png16(values: np.ndarray, *before: bytes) -> bytes:
    """A PNG with 16 bits a channel: grey, grey and alpha, RGB or RGBA."""
    height, width = values.shape[:2]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    return raw_png(width, height, 16, colour_type, values.astype(">u2"), *before)


def tiff16(
    values: np.ndarray, order: str = "<", *, deflate: bool = False, predictor: int = 1, planes: int = 1
) -> bytes:
    """A TIFF with 16 bits a channel, RGB or RGBA."""
    height, width, bands = values.shape
    stored = values
    if predictor == 2:
        stored = np.diff(values.astype(np.int64), axis=1, prepend=0).astype(np.uint16)
    if planes == 2:
        stored = stored.transpose(2, 0, 1)
    content = stored.astype(f"{order}u2").tobytes()
    content = zlib.compress(content) if deflate else content
    tags = {256: width, 257: height, 259: 8 if deflate else 1, 262: 2, 277: bands, 278: height, 279: len(content)}
    tags |= {258: 0, 273: 0, 284: planes, 317: predictor} | ({338: 2} if bands == 4 else {})
    start = 8 + 2 + 12 * len(tags) + 4
    tags |= {258: start, 273: start + 2 * bands}
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 3, bands, value)
        if tag == 258
        else struct.pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in sorted(tags.items())
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4) + struct.pack(f"{order}{bands}H", *[16] * bands) + content


def reference(values: np.ndarray, size: tuple[int, int], low: int, high: int) -> np.ndarray:
    """Resize in single precision first, then scale and round."""
    resized = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR))
    return np.rint(np.clip((resized - low) / (high - low) * 255, 0, 255)).astype(np.uint8)


class TestAllBits:
    @pytest.mark.parametrize("bands", [3, 4])
    def test_colour_png(self, bands: int) -> None:
        found = read_sixteen_bits(png16(VALUES[..., :bands]), DEFAULT_LIMITS)
        assert np.array_equal(found.values, VALUES[..., :3])
        assert (found.alpha is None) == (bands == 3)
        assert bands == 3 or np.array_equal(found.alpha, VALUES[..., 3])

    def test_grey_png_with_and_without_alpha(self) -> None:
        plain = read_sixteen_bits(png16(VALUES[..., 0]), DEFAULT_LIMITS)
        assert np.array_equal(plain.values, VALUES[..., 0])
        assert plain.alpha is None
        found = read_sixteen_bits(png16(VALUES[..., :2]), DEFAULT_LIMITS)
        assert np.array_equal(found.values, VALUES[..., 0])
        assert np.array_equal(found.alpha, VALUES[..., 1])

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("bands", [3, 4])
    @pytest.mark.parametrize(("deflate", "predictor"), [(False, 1), (True, 1), (True, 2)])
    def test_colour_tiff(self, order: str, bands: int, deflate: bool, predictor: int) -> None:
        data = tiff16(VALUES[..., :bands], order, deflate=deflate, predictor=predictor)
        found = read_sixteen_bits(data, DEFAULT_LIMITS)
        assert np.array_equal(found.values, VALUES[..., :3])
        assert bands == 3 or np.array_equal(found.alpha, VALUES[..., 3])

    def test_separate_planes_are_refused(self) -> None:
        assert kind_of(tiff16(VALUES[..., :3], planes=2)) == "unsupported"

    @pytest.mark.parametrize("data", [png16(VALUES[..., :3]), tiff16(VALUES, deflate=True)])
    def test_file_that_ends_early_is_truncated(self, data: bytes) -> None:
        for end in (len(data) // 2, len(data) - 30):
            with pytest.raises(ImageError) as caught:
                decode_image(data[:end], (7, 5), value_range=TWELVE_BITS)
            assert caught.value.kind == "truncated"

    def test_damaged_pixels_are_an_error(self) -> None:
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 7, 16, 2, 0, 0, 0))
        broken = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"no zlib stream") + png_chunk(b"IEND", b"")
        with pytest.raises(ImageError) as caught:
            decode_image(broken, (7, 5), value_range=TWELVE_BITS)
        assert caught.value.kind == "truncated"


class TestRange:
    def test_rounding_comes_after_the_resize(self) -> None:
        values = np.random.default_rng(1).integers(1000, 1012, (60, 40), dtype=np.uint16)
        expected = reference(values, (20, 30), 900, 1100)
        found = decode_image(png16(values), (20, 30), value_range=(900, 1100))
        assert np.array_equal(found, np.repeat(expected[..., None], 3, axis=2))
        rounded_first = Image.fromarray(reference(values, (60, 40), 900, 1100)).resize(
            (30, 20), Image.Resampling.BILINEAR
        )
        assert (np.asarray(rounded_first) != expected).any()
        assert len(np.unique(decode_image(png16(values), (20, 30)))) == 1

    def test_colours_are_scaled_alike(self) -> None:
        expected = np.stack([reference(VALUES[..., band], (6, 4), 100, 40000) for band in range(3)], axis=-1)
        for data in (png16(VALUES[..., :3]), tiff16(VALUES[..., :3])):
            assert np.array_equal(decode_image(data, (6, 4), value_range=(100, 40000)), expected)

    def test_values_outside_are_clipped(self) -> None:
        values = np.array([[0, 99, 100, 150, 200, 201, 65535]], np.uint16)
        found = decode_image(png16(values), values.shape, value_range=(100, 200))[0, :, 0]
        assert found.tolist() == [0, 0, 0, 128, 255, 255, 255]

    def test_alpha_is_composited_on_white(self) -> None:
        pixel = np.array([[[0, 2048, 4095, 0], [0, 2048, 4095, 65535], [0, 0, 0, 32768]]], np.uint16)
        found = decode_image(png16(pixel), (1, 3), value_range=TWELVE_BITS)
        assert found[0].tolist() == [[255, 255, 255], [0, 128, 255], [127, 127, 127]]

    def test_orientation_is_applied(self) -> None:
        values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 50
        turned = decode_image(
            png16(values, png_chunk(b"eXIf", oriented(6).tobytes()[6:])), (3, 2), value_range=(0, 255)
        )
        assert np.array_equal(turned[..., 0], np.rot90(values, -1))

    def test_array_and_pillow_image_equal_the_file(self) -> None:
        expected = decode_image(png16(VALUES[..., :3]), (6, 4), value_range=TWELVE_BITS)
        assert np.array_equal(stretch_values(VALUES[..., :3], (6, 4), TWELVE_BITS), expected)
        grey = np.ascontiguousarray(VALUES[..., 0])
        for value_range in (None, TWELVE_BITS):
            expected = decode_image(png16(grey), (6, 4), value_range=value_range)
            assert np.array_equal(stretch_values(grey, (6, 4), value_range), expected)
            assert np.array_equal(stretch_image(Image.fromarray(grey), (6, 4), value_range=value_range), expected)
        upper = decode_image(png16(VALUES[..., :3]), (6, 4))
        assert np.array_equal(stretch_values(VALUES[..., :3], (6, 4), None), upper)


class TestEightBits:
    @pytest.mark.parametrize("name", sorted(set(WHOLE) - {"grey16.png"}))
    def test_a_range_changes_nothing(self, name: str) -> None:
        for size in ((48, 64), (20, 30)):
            plain = decode_image(WHOLE[name], size)
            assert np.array_equal(decode_image(WHOLE[name], size, value_range=TWELVE_BITS), plain)
        assert not file_has_sixteen_bits(WHOLE[name], DEFAULT_LIMITS)

    def test_lossless_files_decode_as_pillow_resizes(self) -> None:
        expected = np.asarray(Image.fromarray(SCENE).resize((30, 20), Image.Resampling.BILINEAR))
        for file_format in ("PNG", "TIFF", "BMP"):
            found = decode_image(encode(SCENE, file_format), (20, 30), value_range=TWELVE_BITS)
            assert np.array_equal(found, expected)

    def test_without_a_range_grey_is_divided_by_257_first(self) -> None:
        values = VALUES[..., 0]
        eight = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
        expected = np.asarray(eight.resize((4, 6), Image.Resampling.BILINEAR))
        assert np.array_equal(decode_image(png16(values), (6, 4))[..., 0], expected)
