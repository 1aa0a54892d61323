"""Finds 16-bit images of cameras that have fewer bits and do not shift their values."""

from __future__ import annotations

from typing import Final

from uniad_ray.archive.images.opening import ImageLimits
from uniad_ray.archive.images.sixteen_bits import SixteenBits, file_has_sixteen_bits, read_sixteen_bits
from uniad_ray.errors import ImageError

CAMERA_BITS: Final = (8, 10, 12, 14, 16)


def sixteen_bits_or_none(data: bytes, limits: ImageLimits) -> SixteenBits | None:
    """The pixels of an image with 16 bits a channel.

    Args:
        data: The encoded file.
        limits: Limits of the image.

    Returns:
        The pixels with all bits; None for images with other bits, and for images that cannot be decoded.
    """
    try:
        return read_sixteen_bits(data, limits) if file_has_sixteen_bits(data, limits) else None
    except ImageError:
        return None


def sixteen_bit_peak(data: bytes, limits: ImageLimits) -> int | None:
    """The largest value of an image with 16 bits a channel, 0 to 65535; alpha does not count. None for other images."""
    found = sixteen_bits_or_none(data, limits)
    return None if found is None else int(found.values.max(initial=0))


def camera_bits(peak: int) -> int:
    """The smallest usual number of bits of a camera that has a value."""
    return next(bits for bits in CAMERA_BITS if peak < 1 << bits)


def looks_unshifted(peak: int) -> bool:
    """Whether a largest value leaves the upper bits of 16 unused."""
    return camera_bits(peak) < CAMERA_BITS[-1]


def unshifted_warning(category: str, peak: int) -> str | None:
    """What to know about a category of unshifted images; None if its values reach the upper bits.

    Args:
        category: Category of the images.
        peak: Largest value of its 16-bit images.
    """
    if not looks_unshifted(peak):
        return None
    bits = camera_bits(peak)
    return (
        f"{category}: no value of its 16-bit images is above {peak}, as from a camera with {bits} bits. "
        f"`uniad-ray fit` finds this range, and `--set value_range=[0,{(1 << bits) - 1}]` sets it. Bundles of older "
        f"versions see {(peak + 128) // 257 + 1} grey levels of them"
    )
