from __future__ import annotations

import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin
from support.image_bytes import SCENE, WHOLE, encode, kind_of, png_chunk, raw_png, raw_tiff

from uniad_ray.archive.images import ImageLimits, decode_image, decode_mask, opening, probe_image
from uniad_ray.errors import ImageError


class TestRefusals:
    def test_empty(self) -> None:
        assert kind_of(b"") == "empty"

    @pytest.mark.parametrize(
        "data", [b"hello, world", b"\0" * 64, b"BM but only a text about bitmaps, really", b"RIFF"]
    )
    def test_not_an_image(self, data: bytes) -> None:
        assert kind_of(data) == "not_an_image"

    @pytest.mark.parametrize("data", [b"%PDF-1.7\n", b"\0\0\0\x20ftypheic", b"8BPS\0\1"])
    def test_other_known_formats(self, data: bytes) -> None:
        assert kind_of(data) == "unsupported"

    def test_other_formats_are_never_opened(self) -> None:
        assert kind_of(encode(SCENE, "PPM")) == "not_an_image"
        assert kind_of(encode(SCENE, "ICO")) == "unsupported"

    def test_too_many_bytes(self) -> None:
        data = encode(SCENE, "PNG")
        assert kind_of(data, ImageLimits(max_bytes=len(data) - 1)) == "too_large"
        assert decode_image(data, (4, 4), ImageLimits(max_bytes=len(data))).shape == (4, 4, 3)

    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
    def test_too_many_pixels(self, file_format: str) -> None:
        data = encode(SCENE, file_format)
        assert kind_of(data, ImageLimits(max_pixels=64 * 48 - 1)) == "too_large"
        assert decode_image(data, (4, 4), ImageLimits(max_pixels=64 * 48)).shape == (4, 4, 3)

    @pytest.mark.parametrize("side", [10_001, 14_000, 60_000, 2**31 - 1])
    def test_png_bomb_is_refused_by_its_header(self, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: pytest.fail("decoded"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert kind_of(raw_png(side, side, 8, 2, np.zeros((1, 3), np.uint8))) == "too_large"

    def test_large_images_within_limits_do_not_warn(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            info = probe_image(raw_png(9_999, 10_000, 1, 0, np.zeros((1, 3), np.uint8)))
        assert (info.width, info.height) == (9_999, 10_000)

    def test_limits_cannot_exceed_pillow_limit(self) -> None:
        with pytest.raises(ValueError, match="178956970"):
            ImageLimits(max_pixels=178_956_971)

    @pytest.mark.parametrize(
        "chunk",
        [
            png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**25))),
            png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2**25))),
            png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2**25))),
        ],
    )
    def test_png_metadata_bombs(self, chunk: bytes) -> None:
        assert kind_of(raw_png(1, 1, 8, 0, np.zeros((1, 1), np.uint8), chunk)) == "too_large"

    def test_gif_canvas_bomb_is_refused_before_opening(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(opening._OPENERS, "GIF", lambda _: pytest.fail("opened"))
        data = bytearray(encode(SCENE, "GIF"))
        struct.pack_into("<HH", data, 6, 65535, 65535)
        assert kind_of(bytes(data)) == "too_large"

    def test_webp_canvas_bomb_is_refused_before_opening(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(opening._OPENERS, "WEBP", lambda _: pytest.fail("opened"))
        frames = [Image.fromarray(SCENE), Image.fromarray(SCENE[::-1])]
        data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
        assert data[12:16] == b"VP8X"
        data[24:30] = b"\xff\xff\x00" * 2
        assert kind_of(bytes(data)) == "too_large"

    def test_tiff_tile_bomb(self) -> None:
        pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
        assert np.array_equal(decode_mask(raw_tiff(pixels, tile=(16, 16))), pixels)
        assert kind_of(raw_tiff(pixels, tile=(60_000, 60_000))) == "too_large"

    def test_global_pillow_settings_are_unchanged(self) -> None:
        before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK)
        decode_image(encode(SCENE, "JPEG"), (8, 8))
        after = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK)
        assert after == before


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestDamage:
    @pytest.mark.parametrize("name", WHOLE)
    def test_shortened_file_gives_all_pixels_or_an_error(self, name: str) -> None:
        whole = WHOLE[name]
        expected = decode_image(whole, (48, 64))
        cuts = {*range(1, 40), *range(len(whole) - 40, len(whole)), *range(40, len(whole), max(1, len(whole) // 60))}
        refused = set()
        for cut in cuts:
            try:
                result = decode_image(whole[:cut], (48, 64))
            except ImageError as error:
                refused.add(error.kind)
            else:
                assert np.array_equal(result, expected), f"half an image from {cut} of {len(whole)} bytes"
        assert "truncated" in refused
        assert refused <= {"truncated", "not_an_image", "unsupported"}

    @pytest.mark.parametrize("name", WHOLE)
    def test_half_a_file_is_truncated(self, name: str) -> None:
        half = WHOLE[name][: len(WHOLE[name]) // 2]
        with pytest.raises(ImageError) as caught:
            decode_image(half, (48, 64))
        assert caught.value.kind == "truncated"

    def test_reduced_scale_still_detects_truncation(self) -> None:
        picture = Image.fromarray(SCENE).resize((640, 480), Image.Resampling.BICUBIC)
        data = encode(picture, "JPEG")
        for part in (0.3, 0.7, 0.95):
            with pytest.raises(ImageError) as caught:
                decode_image(data[: int(part * len(data))], (20, 20))
            assert caught.value.kind == "truncated"

    @settings(max_examples=250, deadline=None)
    @given(
        name=st.sampled_from(sorted(WHOLE)),
        edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
        keep=st.one_of(st.just(1.0), st.floats(0, 1)),
        tail=st.binary(max_size=8),
    )
    def test_corrupt_bytes_give_an_array_or_image_error(
        self, name: str, edits: list[tuple[float, int]], keep: float, tail: bytes
    ) -> None:
        data = bytearray(WHOLE[name])
        for position, value in edits:
            data[int(position * len(data))] = value
        damaged = bytes(data[: int(keep * len(data))]) + tail
        limits = ImageLimits(max_pixels=4_000_000)
        with suppress(ImageError):
            result = decode_image(damaged, (10, 14), limits)
            assert result.shape == (10, 14, 3)
            assert result.dtype == np.uint8
            assert probe_image(damaged, limits).width >= 1
        with suppress(ImageError):
            mask = decode_mask(damaged, limits)
            assert mask.ndim == 2
            assert mask.dtype in (np.uint8, np.uint16)

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"GIF89a"]))
    def test_arbitrary_bytes(self, noise: bytes, magic: bytes) -> None:
        with suppress(ImageError):
            assert decode_image(magic + noise, (3, 3), ImageLimits(max_pixels=1_000_000)).shape == (3, 3, 3)
