"""Thumbnails, heat maps and mask outlines for reports, each a file of bounded size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from uniad_ray.archive.image_size import fitted_size
from uniad_ray.archive.images import decode_image, decode_mask
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import ImageError
from uniad_ray.reporting.model import MapScale

THUMBNAIL_SIDE: Final = 320
OUTLINE_SIDE: Final = 200
MAP_SIDE: Final = 64
MAX_JPEG_BYTES: Final = 24 << 10
_QUALITIES: Final = (82, 65, 45, 25, 10)

HEAT_LEVELS: Final = 64
_HEAT_STOPS: Final = (
    # Position (0 at the start of the scale, 0.5 at the threshold, 1 at the top), then red, green, blue, opacity.
    (0.0, 255, 236, 140, 0),
    (0.25, 255, 236, 140, 0),
    (0.5, 255, 190, 60, 110),
    (0.75, 238, 70, 40, 150),
    (1.0, 128, 0, 90, 175),
)
_TOP_QUANTILE: Final = 0.95
_REGION_COLOUR: Final = (0, 255, 255)


@dataclass(frozen=True)
class Picture:
    """The layers of one image; each covers the whole image.

    Attributes:
        thumbnail: JPEG; None if the image cannot be shown.
        heat_map: PNG with transparency; None if the run keeps no map.
        outline: PNG with transparency, a line around the masks; None without a mask.
        width: Width of the thumbnail, pixels.
        height: Height of the thumbnail, pixels.
        problems: Why layers are missing, one sentence each.
    """

    thumbnail: bytes | None
    heat_map: bytes | None
    outline: bytes | None
    width: int
    height: int
    problems: tuple[str, ...] = ()


def map_scale(scores: np.ndarray, threshold: float) -> MapScale:
    """Chooses the colour scale of a category: from 0, the mean of normal images, past the threshold to high scores.

    Args:
        scores: Fused scores of the category, shape (N,).
        threshold: The category's threshold.
    """
    start = min(0.0, threshold - 1.0)
    above = scores[scores > threshold]
    high = float(np.quantile(above, _TOP_QUANTILE)) if above.size else threshold
    # The range above the threshold is at least as wide as the range below it.
    return MapScale(start=start, threshold=threshold, top=max(high, 2.0 * threshold - start))


def missing_picture(problem: str) -> Picture:
    """A placeholder for an image that cannot be shown."""
    return Picture(None, None, None, THUMBNAIL_SIDE, THUMBNAIL_SIDE, (problem,))


def draw_picture(
    image: bytes,
    size: tuple[int, int],
    masks: Sequence[bytes],
    anomaly_map: np.ndarray | None,
    scale: MapScale,
    inside: np.ndarray | None = None,
    value_range: ValueRange | None = None,
) -> Picture:
    """Draws the layers of one image.

    Args:
        image: The encoded file.
        size: Height and width after EXIF orientation, pixels.
        masks: Ground-truth masks as encoded files; a pixel above 0 is anomalous.
        anomaly_map: Float, shape (h, w), on the calibrated scale; None without a map.
        scale: Colour scale of the map.
        inside: bool, shape of the thumbnail: the region that counts, drawn as a thin line; None draws none.
        value_range: As in `decode_image`.

    Returns:
        The layers; a layer that cannot be decoded is None, with an entry in `problems`.
    """
    height, width = fitted_size(size, THUMBNAIL_SIDE)
    problems = []
    thumbnail = outline = None
    try:
        pixels = decode_image(image, (height, width), value_range=value_range)
        thumbnail = _jpeg(pixels if inside is None else with_region(pixels, inside))
    except ImageError as error:
        problems.append(f"The image cannot be shown: {error}.")
    try:
        outline = _outline(masks, size)
    except ImageError as error:
        problems.append(f"The mask cannot be shown: {error}.")
    heat_map = None if anomaly_map is None else heat_png(anomaly_map, size, scale)
    return Picture(thumbnail, heat_map, outline, width, height, tuple(problems))


def with_region(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Draws a thin line along the edge of a region: bright inside and dark outside, visible on any image.

    Args:
        pixels: uint8, shape (H, W, 3), RGB; not changed.
        inside: bool, shape (H, W).
    """
    inner = inside & ~binary_erosion(inside, border_value=1)
    outer = binary_dilation(inside) & ~inside
    drawn = np.where(inner[..., None], np.array(_REGION_COLOUR, dtype=np.uint8), pixels)
    return np.where(outer[..., None], np.uint8(0), drawn)


def region_png(inside: np.ndarray) -> bytes:
    """The line of `with_region` alone, as a PNG with transparency.

    Args:
        inside: bool, shape (H, W).
    """
    inner = inside & ~binary_erosion(inside, border_value=1)
    outer = binary_dilation(inside) & ~inside
    levels = inner.astype(np.uint8) + 2 * outer.astype(np.uint8)
    colours = np.array([(0, 0, 0), _REGION_COLOUR, (0, 0, 0)], dtype=np.uint8)
    return _palette_png(levels, colours, np.array([0, 255, 255], dtype=np.uint8))


def heat_png(anomaly_map: np.ndarray, size: tuple[int, int], scale: MapScale) -> bytes:
    """Colours a map on the scale of its category, as a small PNG with the aspect ratio of the image.

    Args:
        anomaly_map: Float, shape (h, w); it covers the whole image.
        size: Height and width of the image, pixels.
        scale: Colour scale.
    """
    palette = _heat_palette()
    return _palette_png(_heat_levels(anomaly_map, fitted_size(size, MAP_SIDE), scale), palette[:, :3], palette[:, 3])


def overlay(pixels: np.ndarray, anomaly_map: np.ndarray | None, scale: MapScale) -> Image.Image:
    """Draws a map over its image, in the colours of the reports.

    Args:
        pixels: uint8, shape (H, W, 3), RGB.
        anomaly_map: Float, shape (h, w); it covers the whole image. None draws only the image.
        scale: Colour scale.

    Returns:
        An RGB image of W x H pixels.
    """
    picture = Image.fromarray(pixels)
    if anomaly_map is None:
        return picture
    height, width = pixels.shape[:2]
    heat = Image.fromarray(_heat_palette()[_heat_levels(anomaly_map, (height, width), scale)])
    return Image.alpha_composite(picture.convert("RGBA"), heat).convert("RGB")


def heat_legend() -> bytes:
    """All colours of the heat maps in one row: a PNG of `HEAT_LEVELS` x 1 pixels."""
    palette = _heat_palette()
    return _palette_png(np.arange(HEAT_LEVELS, dtype=np.uint8)[None], palette[:, :3], palette[:, 3])


def _heat_levels(anomaly_map: np.ndarray, size: tuple[int, int], scale: MapScale) -> np.ndarray:
    """Palette index of each pixel: uint8, shape `size`."""
    height, width = size
    values = np.asarray(
        Image.fromarray(anomaly_map.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    )
    knots = (scale.start, scale.threshold, scale.top)
    positions = np.interp(values, knots, (0.0, 0.5, 1.0))
    return np.asarray(np.rint(positions * (HEAT_LEVELS - 1)), dtype=np.uint8)


def _heat_palette() -> np.ndarray:
    """Red, green, blue and opacity of each level: uint8, shape (HEAT_LEVELS, 4)."""
    stops = np.array(_HEAT_STOPS)
    positions = np.linspace(0.0, 1.0, HEAT_LEVELS)
    channels = [np.interp(positions, stops[:, 0], stops[:, channel]) for channel in range(1, 5)]
    return np.asarray(np.rint(np.stack(channels, axis=1)), dtype=np.uint8)


def _outline(masks: Sequence[bytes], size: tuple[int, int]) -> bytes | None:
    """Draws a white line around the masks, and a dark line around that, so it is visible on any image."""
    height, width = fitted_size(size, OUTLINE_SIDE)
    joined = np.zeros((height, width), dtype=bool)
    for data in masks:
        mask = decode_mask(data) > 0
        if mask.shape != tuple(size):
            found, wanted = (f"{columns} x {rows}" for rows, columns in (mask.shape, size))
            raise ImageError("unsupported", f"it is {found} pixels, the image {wanted}")
        # A box filter keeps a trace of the smallest defect.
        shrunk = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
        joined |= np.asarray(shrunk) > 0
    if not joined.any():
        return None
    inner = binary_dilation(joined)
    outer = binary_dilation(inner)
    levels = (inner & ~joined).astype(np.uint8) + 2 * (outer & ~inner).astype(np.uint8)
    colours = np.array([[0, 0, 0], [255, 255, 255], [0, 0, 0]], dtype=np.uint8)
    return _palette_png(levels, colours, np.array([0, 255, 190], dtype=np.uint8))


def _jpeg(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(pixels)
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MAX_JPEG_BYTES:
            break
    return buffer.getvalue()


def _palette_png(levels: np.ndarray, colours: np.ndarray, opacities: np.ndarray) -> bytes:
    picture = Image.fromarray(levels)
    picture.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=opacities.tobytes(), optimize=True)
    return buffer.getvalue()
