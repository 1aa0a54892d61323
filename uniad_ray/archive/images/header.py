"""Reads what the header of an image file says, without decoding any pixel."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from PIL import ExifTags, Image

from uniad_ray.archive.images.opening import DEFAULT_LIMITS, ImageLimits, open_image

TRANSPOSE_BY_ORIENTATION: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageInfo:
    """Contents of an image header.

    Attributes:
        width: Pixels, as displayed (after the EXIF orientation).
        height: Pixels, as displayed (after the EXIF orientation).
        format: `JPEG`, `PNG`, `TIFF`, `BMP`, `WEBP` or `GIF`.
        mode: Pillow's mode of the stored pixels, such as `RGB`, `L` or `I;16`.
        captured_at: EXIF DateTimeOriginal. It has a time zone if EXIF gives the offset; otherwise it is naive: the
            camera's own clock in an unknown zone. None if absent or malformed.
    """

    width: int
    height: int
    format: str
    mode: str
    captured_at: datetime | None


def probe_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageInfo:
    """Reads the header of an image without decoding any pixel.

    Args:
        data: The encoded file.
        limits: Limits of the image.

    Returns:
        Size, format, mode and capture time.

    Raises:
        ImageError: `empty`, `not_an_image`, `unsupported`, `too_large`, or `truncated` if the file ends early or is
            corrupt.
    """
    image, format_name = open_image(data, limits)
    height, width = displayed_size(image)
    return ImageInfo(width, height, format_name, image.mode, _captured_at(image))


def displayed_size(image: Any) -> tuple[int, int]:
    """Height and width of a Pillow image, after the EXIF orientation."""
    width, height = image.size
    return (width, height) if displayed_orientation(image) >= 5 else (height, width)


def displayed_orientation(image: Any) -> int:
    """EXIF orientation that a decoder must still apply to an opened Pillow image, 1 to 8."""
    # Pillow turns a TIFF itself while it loads.
    return 1 if image.format == "TIFF" else orientation_of(image)


def orientation_of(image: Any) -> int:
    """EXIF orientation of an opened Pillow image, 1 to 8; 1 if it has none."""
    exif = _exif(image)
    if exif is None:
        return 1
    try:
        return next(valid for valid in TRANSPOSE_BY_ORIENTATION if valid == exif.get(ExifTags.Base.Orientation))
    except Exception:
        return 1


def _exif(image: Any) -> Any | None:
    """The EXIF tags of an opened image; None if they are corrupt: the image itself may still be valid."""
    try:
        # PngImageFile.getexif would decode the pixels to look for late chunks.
        return Image.Image.getexif(image)
    except Exception:
        return None


def _captured_at(image: Any) -> datetime | None:
    exif = _exif(image)
    if exif is None:
        return None
    try:
        tags = exif.get_ifd(ExifTags.IFD.Exif)
        moment = str(tags[ExifTags.Base.DateTimeOriginal]).strip("\0 ")
        offset = str(tags.get(ExifTags.Base.OffsetTimeOriginal, "")).strip("\0 ")
    except Exception:
        return None
    for text, pattern in ((moment + offset, "%Y:%m:%d %H:%M:%S%z"), (moment, "%Y:%m:%d %H:%M:%S")):
        try:
            return datetime.strptime(text, pattern)
        except ValueError:
            continue
    return None
