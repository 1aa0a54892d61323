"""Finds 16-bit images of cameras that have fewer bits and do not shift their values: decoded, they are almost black."""

from __future__ import annotations

import numpy as np

from uniad_ray.archive.images import SIXTEEN_BIT_MODES, ImageLimits, open_image, pillow_errors
from uniad_ray.errors import ImageError

_CAMERA_BITS = (8, 10, 12, 14)
_MAY_HAVE_SIXTEEN_BITS = (b"\x89PNG", b"II", b"MM")
_TIFF_BITS_PER_SAMPLE = 258


def sixteen_bit_peak(data: bytes, limits: ImageLimits) -> int | None:
    """The largest value of an image with 16 bits a channel; alpha does not count.

    Args:
        data: The encoded file.
        limits: Limits of the image.

    Returns:
        A value from 0 to 65535, of colours only the upper byte exact; None for images with other bits, and for images
        that cannot be decoded.
    """
    if not data.startswith(_MAY_HAVE_SIXTEEN_BITS) or (data.startswith(b"\x89PNG") and data[24:25] != b"\x10"):
        return None
    try:
        image, format_name = open_image(data, limits)
        if format_name == "TIFF" and 16 not in np.ravel(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, 1)):
            return None
        with pillow_errors(format_name):
            values = np.asarray(image)
    except ImageError:
        return None
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
        return int(values.max(initial=0))
    # Pillow keeps the upper byte of each colour.
    colours = values[..., :-1] if image.mode in ("LA", "RGBA") else values
    return int(colours.max(initial=0)) * 256 + 255


def looks_unshifted(peak: int) -> bool:
    """Whether a largest value leaves the upper bits of 16 unused."""
    return peak < 1 << _CAMERA_BITS[-1]


def unshifted_warning(category: str, peak: int) -> str | None:
    """What to do about a category of unshifted images; None if its values reach the upper bits.

    Args:
        category: Category of the images.
        peak: Largest value of its 16-bit images.
    """
    if not looks_unshifted(peak):
        return None
    bits = next(bits for bits in _CAMERA_BITS if peak < 1 << bits)
    return (
        f"{category}: no value of its 16-bit images is above {peak}, as from a camera with {bits} bits; decoded to 8 "
        f"bits, {(peak + 128) // 257 + 1} grey levels are left. Multiply the values by {1 << 16 - bits} and ingest the "
        "images into a new archive"
    )
