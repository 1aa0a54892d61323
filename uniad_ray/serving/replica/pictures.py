"""Pictures of uploads that a browser cannot show: with 16 bits a channel, it shows 12 bits of a camera as black."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from uniad_ray.archive.image_size import fitted_size
from uniad_ray.archive.images import ImageLimits, decode_image, probe_image
from uniad_ray.archive.images.sixteen_bits import file_has_sixteen_bits
from uniad_ray.config.value_range import ValueRange

_SIDE: Final = 1024
_QUALITY: Final = 92


def sixteen_bit_picture(data: bytes, limits: ImageLimits, value_range: ValueRange | None) -> bytes | None:
    """A JPEG of an image as the networks see it, with sides of at most 1024 pixels; None of an image with 8 bits.

    Args:
        data: The encoded file.
        limits: Limits of the image.
        value_range: As in `decode_image`.

    Raises:
        ImageError: The image cannot be decoded.
    """
    if not file_has_sixteen_bits(data, limits):
        return None
    info = probe_image(data, limits)
    pixels = decode_image(data, fitted_size((info.height, info.width), _SIDE), limits, value_range)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=_QUALITY)
    return sink.getvalue()
