"""Thumbnails, heat maps and outlines, pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from support.trees import mask_png, png

from uniad_ray.reporting.drawing.pictures import (
    HEAT_LEVELS,
    MAP_SIDE,
    MAX_JPEG_BYTES,
    draw_picture,
    heat_legend,
    heat_png,
    map_scale,
    missing_picture,
    overlay,
    region_png,
    with_region,
)
from uniad_ray.reporting.model import MapScale

SCALE = MapScale(start=0.0, threshold=2.0, top=8.0)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_picture_has_all_its_layers() -> None:
    picture = draw_picture(png(0), (48, 48), [mask_png()], np.ones((4, 4), np.float16), SCALE)
    assert picture.problems == ()
    assert picture.thumbnail is not None
    assert picture.heat_map is not None
    assert picture.outline is not None
    assert pixels(picture.thumbnail).shape[:2] == (picture.height, picture.width) == (48, 48)


@pytest.mark.parametrize(("size", "shown"), [((1200, 640), (320, 171)), ((30, 20), (30, 20)), ((1, 4000), (1, 320))])
def test_thumbnails_keep_aspect_ratio_and_never_enlarge(size: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = draw_picture(encoded(np.zeros((*size, 3), np.uint8)), size, [], None, SCALE)
    assert picture.thumbnail is not None
    assert pixels(picture.thumbnail).shape[:2] == (picture.height, picture.width) == shown


def test_overlay_covers_only_anomalous_pixels() -> None:
    image = np.full((20, 40, 3), 100, np.uint8)
    drawn = np.asarray(overlay(image, np.array([[0.0, 8.0]], np.float32), SCALE))
    assert drawn.shape == (20, 40, 3)
    assert (drawn[:, 0] == 100).all()
    # The last stop is (128, 0, 90) with opacity 175 of 255.
    assert np.allclose(drawn[:, -1], [100 + 28 * 175 / 255, 100 * 80 / 255, 100 - 10 * 175 / 255], atol=1)
    assert np.array_equal(np.asarray(overlay(image, None, SCALE)), image)


def test_the_exif_orientation_is_respected() -> None:
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:, :30] = 255
    turned = Image.Exif()
    turned[0x0112] = 6
    picture = draw_picture(encoded(stored, "JPEG", exif=turned), (60, 40), [], None, SCALE)
    assert picture.thumbnail is not None
    shown = pixels(picture.thumbnail)
    # After a clockwise turn, the white left half is at the top.
    assert shown.shape[:2] == (60, 40)
    assert shown[5, 20, 0] > 200
    assert shown[55, 20, 0] < 50


def test_noise_is_compressed_until_it_fits() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), dtype=np.uint8)
    picture = draw_picture(encoded(noise), (640, 640), [encoded(noise[..., 0])], noise[..., 0] / 16.0, SCALE)
    assert picture.thumbnail is not None
    assert picture.heat_map is not None
    assert len(picture.thumbnail) <= MAX_JPEG_BYTES
    assert len(picture.heat_map) <= 6 << 10


def test_unreadable_image_keeps_its_other_layers() -> None:
    picture = draw_picture(b"nonsense", (48, 48), [mask_png()], np.ones((4, 4), np.float16), SCALE)
    assert picture.thumbnail is None
    assert picture.outline is not None
    assert picture.problems == ("The image cannot be shown: the file is none of JPEG, PNG, TIFF, BMP, WEBP, GIF.",)
    assert missing_picture("gone").problems == ("gone",)


@pytest.mark.parametrize(
    ("mask", "problem"),
    [(b"", "the file is empty"), (mask_png(20), "it is 20 x 20 pixels, the image 48 x 48")],
    ids=["empty", "of another size"],
)
def test_unusable_mask_is_reported(mask: bytes, problem: str) -> None:
    picture = draw_picture(png(0), (48, 48), [mask_png(), mask], None, SCALE)
    assert picture.thumbnail is not None
    assert picture.outline is None
    assert picture.problems == (f"The mask cannot be shown: {problem}.",)


def test_outline_surrounds_the_mask() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[40:60, 40:60] = 1
    picture = draw_picture(encoded(np.zeros((100, 100, 3), np.uint8)), (100, 100), [encoded(mask)], None, SCALE)
    assert picture.outline is not None
    layer = pixels(picture.outline)
    assert (layer[40:60, 40:60, 3] == 0).all()
    assert layer[50, 39].tolist() == [255, 255, 255, 255]
    assert layer[50, 38].tolist() == [0, 0, 0, 190]
    assert layer[50, 37, 3] == 0


def test_single_pixel_has_an_outline_and_empty_mask_none() -> None:
    mask = np.zeros((2000, 2000), np.uint8)
    black = encoded(np.zeros((2000, 2000, 3), np.uint8))
    assert draw_picture(black, (2000, 2000), [encoded(mask)], None, SCALE).outline is None
    mask[1234, 777] = 255
    assert draw_picture(black, (2000, 2000), [encoded(mask)], None, SCALE).outline is not None


def test_colours_follow_the_scale_of_the_category() -> None:
    # Far below the start, half way to the threshold, at the threshold, at the top and far above.
    values = np.array([[-100.0, 1.0, 2.0, 8.0, 1e4]], np.float32)
    below, half, at, top, above = pixels(heat_png(values, (1, 5), SCALE))[0].astype(int)
    assert below[3] == 0
    assert half[3] <= 6
    assert np.abs(at - [255, 190, 60, 110]).max() <= 4
    assert top.tolist() == above.tolist() == [128, 0, 90, 175]


def test_heat_map_has_the_aspect_ratio_of_its_image() -> None:
    assert pixels(heat_png(np.zeros((64, 64), np.float16), (400, 800), SCALE)).shape[:2] == (MAP_SIDE // 2, MAP_SIDE)
    assert pixels(heat_legend()).shape[:2] == (1, HEAT_LEVELS)


@pytest.mark.parametrize("threshold", [3.0, 0.2, 0.0, -4.0])
def test_scale_ascends_at_any_threshold(threshold: float) -> None:
    scale = map_scale(np.array([threshold - 2, threshold]), threshold)
    assert scale.start < scale.threshold < scale.top
    assert scale.threshold == threshold
    assert scale.start == (0.0 if threshold >= 1 else threshold - 1)


def test_scale_covers_most_scores_above_the_threshold() -> None:
    scores = np.concatenate([np.zeros(500), np.linspace(3, 40, 100), [1e6]])
    assert map_scale(scores, 2.0).top == pytest.approx(38.5, abs=0.5)
    assert map_scale(np.array([2.1]), 2.0).top == 4.0


def test_region_is_a_thin_line_along_its_edge() -> None:
    inside = np.zeros((6, 7), dtype=bool)
    inside[1:6, 2:7] = True
    plain = np.full((6, 7, 3), 9, dtype=np.uint8)
    drawn = with_region(plain, inside)
    # The border of the image is no edge.
    expected = plain.copy()
    expected[0, 2:7] = expected[1:6, 1] = 0
    expected[1, 2:7] = expected[1:6, 2] = (0, 255, 255)
    assert np.array_equal(drawn, expected)
    assert (plain == 9).all()
    line = np.asarray(Image.open(io.BytesIO(region_png(inside))).convert("RGBA"))
    assert np.array_equal(np.where(line[..., 3:] > 0, line[..., :3], plain), expected)
    assert set(np.unique(line[..., 3])) == {0, 255}
    thumbnails = [draw_picture(encoded(plain), (6, 7), [], None, SCALE, region).thumbnail for region in (None, inside)]
    assert thumbnails[0] != thumbnails[1]
