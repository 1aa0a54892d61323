"""Decodes image files to arrays: every unusual file is decoded by a stated rule, or rejected with a stable kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from uniad_ray.archive.images.header import TRANSPOSE_BY_ORIENTATION, displayed_orientation, orientation_of
from uniad_ray.archive.images.opening import DEFAULT_LIMITS, ImageLimits, check_pixels, open_image, pillow_errors
from uniad_ray.archive.images.sixteen_bits import (
    SIXTEEN_BIT_MODES,
    SixteenBits,
    grey_values,
    has_sixteen_bits,
    read_sixteen_bits,
    scale,
)
from uniad_ray.errors import ImageError

_DRAFT_MARGIN: Final = 2


def decode_image(
    data: bytes,
    size: tuple[int, int],
    limits: ImageLimits = DEFAULT_LIMITS,
    value_range: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decodes an image to 8-bit RGB as displayed, stretched to the given size.

    The resize is Pillow's bilinear filter with antialiasing: its support grows with the reduction. The aspect ratio is
    not kept. A JPEG at least four times as large as the result is decoded at 1/2, 1/4 or 1/8 scale in the DCT domain,
    never below twice the size of the result. Conversions:

    - Images with 16 bits a channel, grey or colour, are stretched with all bits and then scaled: `value_range` becomes
      0 to 255. Mode `I` (32-bit integer) likewise, if all values are in 0..65535. No 8-bit image depends on the range.
    - Without a range, 16-bit grey is divided by 257 before it is stretched, and colours keep only the upper byte.
    - 1-bit becomes 0 and 255. Grey is repeated. CMYK is converted without its ICC profile; no profile is applied.
    - Transparency (alpha, or a transparent colour in 8-bit files) is composited on white.
    - The EXIF orientation is applied. Of several frames, the first is used.

    Args:
        data: The encoded file.
        size: Height and width of the result, pixels.
        limits: Limits of the image.
        value_range: Values of images with 16 bits a channel that become 0 and 255; those outside are clipped.

    Returns:
        uint8, shape (height, width, 3), RGB.

    Raises:
        ImageError: As `probe_image`. Also `unsupported` for pixels without a known value range: 32-bit float, or
            integers out of range. A file that was cut off is `truncated` and never decoded in part. Pillow does not
            detect damage that leaves the outer structure of the file intact, such as wrong JPEG entropy data or a PNG
            stream that ends early; neither does this function.
        ValueError: `size` is not positive.
    """
    if min(size) < 1:
        raise ValueError(f"the size must be positive, not {size}")
    image, format_name = open_image(data, limits)
    if value_range is not None and has_sixteen_bits(image):
        return _upright(read_sixteen_bits(data, limits), size, value_range, displayed_orientation(image))
    if format_name == "JPEG":
        height, width = size if orientation_of(image) < 5 else size[::-1]
        with pillow_errors(format_name):
            image.draft(None, (_DRAFT_MARGIN * width, _DRAFT_MARGIN * height))
    return stretch_image(image, size, limits)


def stretch_image(
    image: Any,
    size: tuple[int, int],
    limits: ImageLimits = DEFAULT_LIMITS,
    value_range: tuple[int, int] | None = None,
) -> np.ndarray:
    """Brings a Pillow image to 8-bit RGB of one size, with the conversions of `decode_image` and its errors.

    A Pillow image has 16 bits in grey only.
    """
    if min(size) < 1:
        raise ValueError(f"the size must be positive, not {size}")
    check_pixels(image.size, limits)
    with pillow_errors(image.format or "image"):
        image.load()
        orientation = displayed_orientation(image)
        if value_range is not None and (image.mode in SIXTEEN_BIT_MODES or image.mode == "I"):
            return _upright(SixteenBits(grey_values(image)), size, value_range, orientation)
        stored_size = size if orientation >= 5 else size[::-1]
        resized = _to_eight_bits(image).resize(stored_size, Image.Resampling.BILINEAR)
        if resized.mode == "RGBA":
            white = Image.new("RGBA", resized.size, (255, 255, 255, 255))
            resized = Image.alpha_composite(white, resized)
        if orientation > 1:
            resized = resized.transpose(TRANSPOSE_BY_ORIENTATION[orientation])
        return np.array(resized.convert("RGB"))


def stretch_values(values: np.ndarray, size: tuple[int, int], value_range: tuple[int, int] | None) -> np.ndarray:
    """Brings an array of 16-bit values to 8-bit RGB of one size, as `decode_image` does with a file of it.

    Args:
        values: uint16, shape (H, W) for grey, (H, W, 3) for RGB.
        size: Height and width of the result, pixels.
        value_range: As in `decode_image`.
    """
    if value_range is None:
        picture = Image.fromarray(values if values.ndim == 2 else (values >> 8).astype(np.uint8))
        return stretch_image(picture, size)
    return scale(SixteenBits(values), size, value_range)


def decode_batch(
    encoded: Sequence[bytes],
    size: tuple[int, int],
    limits: ImageLimits,
    value_range: tuple[int, int] | None = None,
) -> tuple[np.ndarray, dict[int, ImageError]]:
    """Decodes image files to one size, and collects the errors.

    Args:
        encoded: N image files.
        size: Height and width of the results, pixels.
        limits: Limits of each file.
        value_range: As in `decode_image`.

    Returns:
        The M <= N decoded images in order, uint8, shape (M, height, width, 3); and the errors by index.
    """
    images: list[np.ndarray] = []
    errors: dict[int, ImageError] = {}
    for index, data in enumerate(encoded):
        try:
            images.append(decode_image(data, size, limits, value_range))
        except ImageError as error:
            errors[index] = error
    stacked = np.stack(images) if images else np.zeros((0, *size, 3), dtype=np.uint8)
    return stacked, errors


def _upright(image: SixteenBits, size: tuple[int, int], value_range: tuple[int, int], orientation: int) -> np.ndarray:
    pixels = scale(image, size if orientation < 5 else size[::-1], value_range)
    if orientation == 1:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(TRANSPOSE_BY_ORIENTATION[orientation]))


def _to_eight_bits(image: Any) -> Any:
    """Converts a loaded image to mode L, RGB or RGBA."""
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
        values = grey_values(image)
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ImageError("unsupported", "float pixels have no known value range; convert to 8 or 16 bits")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")
