"""Decodes ground-truth masks."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from PIL import Image

from uniad_ray.archive.images.header import TRANSPOSE_BY_ORIENTATION, orientation_of
from uniad_ray.archive.images.opening import DEFAULT_LIMITS, ImageLimits, open_image, pillow_errors
from uniad_ray.archive.images.sixteen_bits import SIXTEEN_BIT_MODES, grey_values
from uniad_ray.errors import ImageError

_UNDO_ORIENTATION: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def decode_mask(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Decodes a ground-truth mask to its raw grey values, in the stored orientation and size.

    1-bit becomes 0 and 255. A palette of greys gives its greys. A palette with colours gives the palette indices, the
    usual encoding of label maps. RGB is accepted if all three channels are equal, alpha if all pixels are opaque.

    Args:
        data: The encoded file.
        limits: Limits of the mask.

    Returns:
        uint8, or uint16 for 16-bit files, shape (H, W).

    Raises:
        ImageError: As `probe_image`; `unsupported` for a mask with colours, transparency or float values.
    """
    image, format_name = open_image(data, limits)
    orientation = orientation_of(image) if format_name == "TIFF" else 1
    with pillow_errors(format_name):
        image.load()
        values = _mask_values(image)
        if orientation > 1:
            undo = TRANSPOSE_BY_ORIENTATION[_UNDO_ORIENTATION[orientation]]
            values = np.array(Image.fromarray(values).transpose(undo))
        return values


def _mask_values(image: Any) -> np.ndarray:
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
        return grey_values(image)
    if image.mode == "P":
        indices = np.array(image)
        palette = np.zeros((256, 3), dtype=np.uint8)
        colours = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        palette[: len(colours)] = colours
        is_grey = bool((palette == palette[:, :1]).all())
        return palette[indices, 0] if is_grey else indices
    if image.mode in ("LA", "RGB", "RGBA", "RGBX"):
        channels = np.array(image)
        if image.mode in ("LA", "RGBA") and (channels[..., -1] < 255).any():
            raise ImageError("unsupported", "the mask is partly transparent; save it as opaque grey")
        colours = channels[..., :1] if image.mode == "LA" else channels[..., :3]
        if (colours != colours[..., :1]).any():
            raise ImageError("unsupported", "the mask has colours; save it as grey")
        return np.ascontiguousarray(colours[..., 0])
    raise ImageError("unsupported", f"a mask cannot have the pixel mode {image.mode}; save it as grey")
