"""All image sources give the pixels of the file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.image_bytes import SCENE, encode, oriented

from uniad_ray.archive.images import ImageLimits, decode_image
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ImageError, ObjectNotFoundError, StoreError
from uniad_ray.scoring.image_sources import load_image

SIZE = (20, 28)
PNG = encode(SCENE, "PNG")


def opened(data: bytes) -> Any:
    return Image.open(io.BytesIO(data))


def test_all_sources_give_the_same_pixels(store_root: str, tmp_path: Path) -> None:
    expected = decode_image(PNG, SIZE)
    place = Location.parse(store_root) / "scene.png"
    place.write_bytes(PNG)
    path = tmp_path / "scene.png"
    path.write_bytes(PNG)
    for source in (place.uri, str(path), path, PNG, bytearray(PNG), opened(PNG), Image.fromarray(SCENE), SCENE):
        loaded = load_image(source, SIZE)
        assert np.array_equal(loaded.pixels, expected)
        assert loaded.size == (48, 64)


def test_grey_array_gives_the_pixels_of_its_file() -> None:
    grey = SCENE[..., 0]
    assert np.array_equal(load_image(grey, SIZE).pixels, decode_image(encode(grey, "PNG"), SIZE))


def test_array_need_not_be_contiguous() -> None:
    assert np.array_equal(load_image(SCENE[::2, ::-1], SIZE).pixels, load_image(SCENE[::2, ::-1].copy(), SIZE).pixels)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16", "CMYK"])
def test_pillow_modes_give_the_pixels_of_the_file(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(SCENE[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(SCENE).convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(SCENE[..., 1]))
    data = encode(image, "TIFF" if mode == "CMYK" else "PNG")
    assert np.array_equal(load_image(image, SIZE).pixels, decode_image(data, SIZE))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_orientation_of_opened_file_is_applied(file_format: str, orientation: int) -> None:
    data = encode(SCENE, file_format, exif=oriented(orientation))
    loaded = load_image(opened(data), SIZE)
    assert np.array_equal(loaded.pixels, decode_image(data, SIZE))
    assert loaded.size == load_image(data, SIZE).size == ((64, 48) if orientation >= 5 else (48, 64))


def test_large_pillow_jpeg_is_close_to_its_file() -> None:
    large = np.asarray(Image.fromarray(SCENE).resize((640, 480), Image.Resampling.BICUBIC))
    data = encode(large, "JPEG")
    image = opened(data)
    difference = load_image(image, SIZE).pixels.astype(int) - decode_image(data, SIZE)
    assert np.abs(difference).max() <= 3
    assert image.size == (640, 480)


def test_without_a_side_the_image_keeps_its_size() -> None:
    for source in (PNG, SCENE, opened(PNG)):
        assert np.array_equal(load_image(source).pixels, SCENE)


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        (None, "unsupported", "type NoneType is not an image; give a path"),
        (SCENE.astype(np.float32), "unsupported", r"array of float32 with shape \(48, 64, 3\)"),
        (SCENE[None], "unsupported", r"shape \(1, 48, 64, 3\) is not an image"),
        (SCENE[..., :2], "unsupported", r"give uint8 or uint16 with shape \(H, W, 3\), RGB, or \(H, W\), grey"),
        (SCENE[:0], "empty", "no pixels"),
        (b"text", "not_an_image", "none of JPEG"),
        (b"", "empty", "the file is empty"),
        (PNG[:100], "truncated", "ends early"),
        (Image.fromarray(SCENE[..., 0].astype(np.float32)), "unsupported", "float pixels"),
    ],
)
def test_invalid_source_is_refused(source: Any, kind: str, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        load_image(source, SIZE)
    assert caught.value.kind == kind


@pytest.mark.parametrize("source", [PNG, SCENE, Image.fromarray(SCENE)])
def test_limits_apply_to_every_source(source: Any) -> None:
    with pytest.raises(ImageError, match="the limit is 3071") as caught:
        load_image(source, SIZE, ImageLimits(max_pixels=48 * 64 - 1))
    assert caught.value.kind == "too_large"


def test_file_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    with pytest.raises(ObjectNotFoundError, match=r"cut\.png"):
        load_image(path, SIZE)
    path.write_bytes(PNG[:100])
    with pytest.raises(ImageError, match=r"cut\.png: PNG: ends early"):
        load_image(str(path), SIZE)
    with pytest.raises(StoreError, match="scheme `http` is not supported"):
        load_image("http://host/image.png", SIZE)
