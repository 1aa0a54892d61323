"""Image files: safe decoding to arrays of one size, masks, and what headers say.

`opening` checks a file against limits, `decoding` and `masks` decode it, `sixteen_bits` keeps all bits.
"""

from __future__ import annotations

from uniad_ray.archive.images.decoding import decode_batch, decode_image, stretch_image, stretch_values
from uniad_ray.archive.images.header import ImageInfo, displayed_size, probe_image
from uniad_ray.archive.images.masks import decode_mask
from uniad_ray.archive.images.opening import DEFAULT_LIMITS, ImageLimits

__all__ = [
    "DEFAULT_LIMITS",
    "ImageInfo",
    "ImageLimits",
    "decode_batch",
    "decode_image",
    "decode_mask",
    "displayed_size",
    "probe_image",
    "stretch_image",
    "stretch_values",
]
