"""Re-encode archived images for the browser; the original file is never sent."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from uniad_ray.archive.image_size import fitted_size
from uniad_ray.archive.images import decode_image
from uniad_ray.config.value_range import ValueRange
from uniad_ray.perception.region import Region
from uniad_ray.reporting.drawing.pictures import with_region
from uniad_ray.runs.reader import SourceRow

THUMBNAIL_SIDE: Final = 256
IMAGE_SIDE: Final = 2048
_THUMBNAIL_QUALITY: Final = 82
_IMAGE_QUALITY: Final = 92


def thumbnail(source: SourceRow, value_range: ValueRange | None = None) -> bytes:
    """Encode a JPEG with sides of at most 256 pixels.

    Args:
        source: The archive row of the image.
        value_range: As in `decode_image`.

    Raises:
        ImageError: The image cannot be decoded.
    """
    return _encode(source, THUMBNAIL_SIDE, _THUMBNAIL_QUALITY, value_range)


def large_picture(source: SourceRow, region: Region | None = None, value_range: ValueRange | None = None) -> bytes:
    """Encode a JPEG with sides of at most 2048 pixels.

    Args:
        source: The archive row of the image.
        region: Part of the image that counts, drawn as a thin line; None draws none.
        value_range: As in `decode_image`.

    Raises:
        ImageError: The image cannot be decoded.
    """
    return _encode(source, IMAGE_SIDE, _IMAGE_QUALITY, value_range, region)


def _encode(
    source: SourceRow, side: int, quality: int, value_range: ValueRange | None, region: Region | None = None
) -> bytes:
    size = fitted_size((source.height, source.width), side)
    pixels = decode_image(source.image or b"", size, value_range=value_range)
    if region is not None:
        pixels = with_region(pixels, region.at(size))
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=quality)
    return sink.getvalue()
