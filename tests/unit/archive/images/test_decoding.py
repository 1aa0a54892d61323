from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from io import BytesIO
from typing import ClassVar

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, PngImagePlugin
from support.image_bytes import SCENE, WHOLE, encode, oriented, png_chunk, raw_png, raw_tiff

from uniad_ray.archive.images import decode_image, decode_mask, decoding, probe_image
from uniad_ray.errors import ImageError


class TestFormats:
    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
    def test_lossless_formats_keep_the_pixels(self, file_format: str) -> None:
        data = encode(SCENE, file_format)
        assert np.array_equal(decode_image(data, (48, 64)), SCENE)
        info = probe_image(data)
        assert (info.width, info.height, info.format, info.mode) == (64, 48, file_format, "RGB")

    def test_lossless_webp(self) -> None:
        data = encode(SCENE, "WEBP", lossless=True)
        assert np.array_equal(decode_image(data, (48, 64)), SCENE)
        assert probe_image(data).format == "WEBP"

    def test_jpeg_is_close(self) -> None:
        data = encode(SCENE, "JPEG", quality=98, subsampling=0)
        smooth = np.abs(decode_image(data, (48, 64)).astype(int) - SCENE)
        assert np.median(smooth) <= 2
        assert probe_image(data).format == "JPEG"

    def test_multi_picture_jpeg_gives_first_picture(self) -> None:
        first, second = (Image.fromarray(np.full((48, 64, 3), grey, np.uint8)) for grey in (50, 200))
        data = encode(first, "MPO", save_all=True, append_images=[second])
        assert probe_image(data).format == "JPEG"
        assert np.abs(decode_image(data, (4, 4)).astype(int) - 50).max() <= 2

    def test_result_is_writable_and_contiguous(self) -> None:
        result = decode_image(encode(SCENE, "PNG"), (10, 12))
        assert result.shape == (10, 12, 3)
        assert result.dtype == np.uint8
        assert result.flags.writeable
        assert result.flags.c_contiguous

    @pytest.mark.parametrize("size", [(0, 4), (4, -1)])
    def test_size_must_be_positive(self, size: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="positive"):
            decode_image(encode(SCENE, "PNG"), size)

    def test_first_frame_of_gif_and_tiff(self) -> None:
        frames = [Image.fromarray(np.full((6, 6), grey, np.uint8)) for grey in (40, 200)]
        for file_format in ("GIF", "TIFF"):
            data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
            assert (decode_image(data, (6, 6)) == 40).all()
            assert (decode_mask(data) == 40).all()


class TestResize:
    def test_is_antialiased_and_stretches(self) -> None:
        stripes = np.zeros((40, 80, 3), np.uint8)
        stripes[:, ::2] = 254
        result = decode_image(encode(stripes, "PNG"), (10, 10))
        assert np.abs(result[:, 1:-1].astype(int) - 127).max() <= 2

    def test_matches_the_pillow_resize(self) -> None:
        expected = Image.fromarray(SCENE).resize((20, 30), Image.Resampling.BILINEAR)
        assert np.array_equal(decode_image(encode(SCENE, "PNG"), (30, 20)), np.array(expected))

    @pytest.mark.parametrize(
        ("target", "loaded"),
        [
            ((121, 160), (640, 480)),
            ((120, 160), (320, 240)),
            ((61, 80), (320, 240)),
            ((60, 80), (160, 120)),
            ((30, 40), (80, 60)),
            ((4, 4), (80, 60)),
            ((9, 200), (640, 480)),
        ],
    )
    def test_jpeg_scale_is_at_least_twice_the_target(
        self, target: tuple[int, int], loaded: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        picture = Image.fromarray(SCENE).resize((640, 480), Image.Resampling.BICUBIC)
        seen: list[tuple[int, int]] = []
        convert = decoding._to_eight_bits
        monkeypatch.setattr(decoding, "_to_eight_bits", lambda image: (seen.append(image.size), convert(image))[1])
        data = encode(picture, "JPEG", quality=95)
        reduced = decode_image(data, target)
        assert seen == [loaded]
        full = Image.open(BytesIO(data)).resize(target[::-1], Image.Resampling.BILINEAR)
        assert np.abs(reduced.astype(int) - np.array(full)).mean() < 2

    def test_reduced_scale_respects_orientation(self) -> None:
        picture = Image.fromarray(SCENE).resize((640, 320), Image.Resampling.BICUBIC)
        data = encode(picture, "JPEG", quality=95, exif=oriented(6))
        upright = picture.transpose(Image.Transpose.ROTATE_270).resize((20, 40), Image.Resampling.BILINEAR)
        assert np.abs(decode_image(data, (40, 20)).astype(int) - np.array(upright)).mean() < 2


class TestPixelModes:
    def test_one_bit(self) -> None:
        bits = Image.fromarray(SCENE).convert("1")
        expected = np.repeat(np.array(bits)[..., None], 3, axis=2) * np.uint8(255)
        for data in (encode(bits, "PNG"), encode(bits, "TIFF")):
            assert np.array_equal(decode_image(data, (48, 64)), expected)

    def test_grey(self) -> None:
        grey = SCENE[..., 0]
        assert np.array_equal(decode_image(encode(grey, "PNG"), (48, 64)), np.repeat(grey[..., None], 3, axis=2))

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
    def test_sixteen_bit_grey_is_scaled_by_257(self, file_format: str) -> None:
        values = np.array([[0, 128, 129, 257, 32896, 65278, 65407, 65535]], np.uint16)
        result = decode_image(encode(values, file_format), (1, 8))
        assert result[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]
        assert probe_image(encode(values, file_format)).mode == "I;16"

    def test_big_endian_sixteen_bit_tiff(self) -> None:
        data = raw_tiff(np.array([[0, 257, 65535, 514]], ">u2"))
        assert decode_image(data, (1, 4))[0, :, 0].tolist() == [0, 1, 255, 2]
        assert decode_mask(data).tolist() == [[0, 257, 65535, 514]]

    def test_sixteen_bit_colour_gives_the_upper_byte(self) -> None:
        pixels = np.array([[[0x12FF, 0xFF00, 0x00FF], [0x8000, 0x7FFF, 0x0100]]], ">u2")
        data = raw_png(2, 1, 16, 2, pixels)
        assert decode_image(data, (1, 2)).tolist() == [[[0x12, 0xFF, 0x00], [0x80, 0x7F, 0x01]]]

    def test_integer_pixels_beyond_sixteen_bits_are_refused(self) -> None:
        small = encode(Image.fromarray(np.array([[0, 257, 65535]], np.int32)), "TIFF")
        assert probe_image(small).mode == "I"
        assert decode_image(small, (1, 3))[0, :, 0].tolist() == [0, 1, 255]
        assert decode_mask(small).tolist() == [[0, 257, 65535]]
        for value in (-1, 65536):
            wide = encode(Image.fromarray(np.array([[0, value]], np.int32)), "TIFF")
            for call in (decode_mask, lambda data: decode_image(data, (1, 2))):
                with pytest.raises(ImageError, match=r"0\.\.65535") as caught:
                    call(wide)
                assert caught.value.kind == "unsupported"

    def test_float_pixels_are_refused_with_advice(self) -> None:
        data = encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
        with pytest.raises(ImageError, match="convert to 8 or 16 bits") as caught:
            decode_image(data, (4, 4))
        assert caught.value.kind == "unsupported"

    def test_palette(self) -> None:
        image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        assert decode_image(encode(image, "PNG"), (2, 2)).tolist() == [
            [[255, 0, 0], [0, 255, 0]],
            [[0, 0, 255], [0, 255, 0]],
        ]

    def test_transparent_palette_is_composited_on_white(self) -> None:
        image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        by_index = encode(image, "PNG", transparency=1)
        assert decode_image(by_index, (1, 3)).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
        by_alpha = encode(image, "PNG", transparency=bytes([255, 0, 51]))
        assert decode_image(by_alpha, (1, 3)).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 255]]]

    def test_alpha_is_composited_on_white(self) -> None:
        colour = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
        assert decode_image(encode(colour, "PNG"), (1, 3)).tolist() == [[[10, 20, 30], [255] * 3, [204] * 3]]
        grey = Image.fromarray(np.array([[[10, 255], [10, 0], [0, 51]]], np.uint8), "LA")
        assert decode_image(encode(grey, "PNG"), (1, 3)).tolist() == [[[10] * 3, [255] * 3, [204] * 3]]

    def test_hidden_colour_under_transparency_does_not_bleed(self) -> None:
        pixels = np.zeros((16, 16, 4), np.uint8)
        pixels[:, :8] = [255, 0, 0, 0]
        pixels[:, 8:] = [0, 0, 0, 255]
        result = decode_image(encode(pixels, "PNG"), (4, 4)).astype(int)
        assert (np.abs(result[..., 0] - result[..., 1]) <= 1).all()

    def test_transparent_colour_of_a_grey_file(self) -> None:
        data = encode(np.array([[7, 9]], np.uint8), "PNG", transparency=9)
        assert decode_image(data, (1, 2)).tolist() == [[[7] * 3, [255] * 3]]

    def test_cmyk(self) -> None:
        ink = Image.fromarray(np.full((16, 16, 4), [0, 255, 255, 0], np.uint8), "CMYK")
        for data in (encode(ink, "TIFF"), encode(ink, "JPEG", quality=100, subsampling=0)):
            assert probe_image(data).mode == "CMYK"
            result = decode_image(data, (4, 4)).astype(int)
            assert (result[..., 0] > 250).all()
            assert (result[..., 1:] < 5).all()

    def test_cmyk_jpeg_has_adobe_marker(self) -> None:
        ink = Image.fromarray(np.zeros((8, 8, 4), np.uint8), "CMYK")
        data = encode(ink, "JPEG")
        assert b"Adobe" in data
        assert (decode_image(data, (8, 8)) > 250).all()

    def test_lab(self) -> None:
        data = encode(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF")
        assert probe_image(data).mode == "LAB"
        assert (decode_image(data, (4, 4)) >= 254).all()


class TestOrientation:
    UPRIGHT = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [200, 100, 50], [0, 0, 0]]], np.uint8)
    STORED: ClassVar = {
        1: UPRIGHT,
        2: UPRIGHT[:, ::-1],
        3: UPRIGHT[::-1, ::-1],
        4: UPRIGHT[::-1],
        5: UPRIGHT.swapaxes(0, 1),
        6: np.rot90(UPRIGHT, 1),
        7: np.rot90(UPRIGHT, 2).swapaxes(0, 1),
        8: np.rot90(UPRIGHT, -1),
    }

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
    def test_all_eight(self, orientation: int, file_format: str) -> None:
        stored = np.ascontiguousarray(self.STORED[orientation])
        data = encode(stored, file_format, exif=oriented(orientation))
        info = probe_image(data)
        assert (info.width, info.height) == (3, 2)
        assert np.array_equal(decode_image(data, (2, 3)), self.UPRIGHT)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
    def test_masks_stay_as_stored(self, orientation: int, file_format: str) -> None:
        stored = np.ascontiguousarray(self.STORED[orientation][..., 0])
        data = encode(stored, file_format, exif=oriented(orientation))
        assert np.array_equal(decode_mask(data), stored)

    def test_exif_chunk_after_pixels_is_read_without_decoding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = encode(np.ascontiguousarray(self.STORED[6]), "PNG")
        exif = png_chunk(b"eXIf", oriented(6).tobytes().removeprefix(b"Exif\0\0"))
        data = plain[:-12] + exif + plain[-12:]
        assert np.array_equal(decode_image(data, (2, 3)), self.UPRIGHT)

        def refuse(_: object) -> None:
            raise AssertionError("probing must not decode")

        monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", refuse)
        info = probe_image(data)
        assert (info.width, info.height) == (3, 2)
        assert probe_image(plain).width == 2

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_nonsense_values_are_ignored(self, value: int) -> None:
        assert np.array_equal(decode_image(encode(self.UPRIGHT, "PNG", exif=oriented(value)), (2, 3)), self.UPRIGHT)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    def test_corrupt_exif_does_not_reject_the_image(self) -> None:
        data = encode(self.UPRIGHT, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
        assert probe_image(data).captured_at is None
        assert np.array_equal(decode_image(data, (2, 3)), self.UPRIGHT)


class TestCaptureTime:
    @staticmethod
    def stamped(**tags: str) -> bytes:
        exif = Image.Exif()
        directory = exif.get_ifd(ExifTags.IFD.Exif)
        for name, value in tags.items():
            directory[ExifTags.Base[name]] = value
        return encode(SCENE, "JPEG", exif=exif)

    def test_without_offset_is_naive(self) -> None:
        info = probe_image(self.stamped(DateTimeOriginal="2024:02:29 23:59:58"))
        assert info.captured_at == datetime(2024, 2, 29, 23, 59, 58)

    def test_with_offset_is_aware(self) -> None:
        info = probe_image(self.stamped(DateTimeOriginal="2024:02:29 23:59:58", OffsetTimeOriginal="+05:30"))
        zone = timezone(timedelta(hours=5, minutes=30))
        assert info.captured_at == datetime(2024, 2, 29, 23, 59, 58, tzinfo=zone)

    @pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "yesterday", "    :  :     :  :  "])
    def test_malformed_is_none(self, text: str) -> None:
        assert probe_image(self.stamped(DateTimeOriginal=text)).captured_at is None

    def test_malformed_offset_is_dropped(self) -> None:
        info = probe_image(self.stamped(DateTimeOriginal="2024:01:02 03:04:05", OffsetTimeOriginal="local"))
        assert info.captured_at == datetime(2024, 1, 2, 3, 4, 5)

    def test_absent_is_none(self) -> None:
        assert probe_image(encode(SCENE, "JPEG")).captured_at is None


class TestThreads:
    def test_parallel_decoding_gives_same_pixels(self) -> None:
        expected = {name: decode_image(data, (30, 30)) for name, data in WHOLE.items()}
        wrong: list[str] = []

        def work() -> None:
            for name, data in WHOLE.items():
                if not np.array_equal(decode_image(data, (30, 30)), expected[name]):
                    wrong.append(name)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class TestMasks:
    def test_grey_values_are_unchanged(self) -> None:
        values = np.array([[0, 1, 2], [237, 254, 255]], np.uint8)
        mask = decode_mask(encode(values, "PNG"))
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, values)

    def test_sixteen_bits(self) -> None:
        values = np.array([[0, 1, 256, 65535]], np.uint16)
        mask = decode_mask(encode(values, "PNG"))
        assert mask.dtype == np.uint16
        assert np.array_equal(mask, values)

    def test_one_bit(self) -> None:
        data = encode(Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1"), "PNG")
        assert decode_mask(data).tolist() == [[0, 255]]

    def test_palette_of_greys_gives_greys(self) -> None:
        image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
        image.putpalette([255, 255, 255, 0, 0, 0])
        assert decode_mask(encode(image, "PNG")).tolist() == [[255, 0]]

    def test_palette_with_colours_gives_labels(self) -> None:
        image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        assert decode_mask(encode(image, "PNG")).tolist() == [[0, 1, 2]]

    def test_colour_is_refused_unless_grey(self) -> None:
        grey = np.repeat(np.array([[0, 7, 255]], np.uint8)[..., None], 3, axis=2)
        assert decode_mask(encode(grey, "PNG")).tolist() == [[0, 7, 255]]
        with pytest.raises(ImageError, match="colours") as caught:
            decode_mask(encode(SCENE, "PNG"))
        assert caught.value.kind == "unsupported"

    def test_alpha_is_refused_unless_opaque(self) -> None:
        pixels = np.full((2, 2, 4), 255, np.uint8)
        assert (decode_mask(encode(pixels, "PNG")) == 255).all()
        pixels[0, 0, 3] = 254
        with pytest.raises(ImageError, match="transparent"):
            decode_mask(encode(pixels, "PNG"))
