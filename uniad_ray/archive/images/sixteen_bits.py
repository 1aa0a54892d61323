"""Reads images with 16 bits a channel without losing any, and scales them to 8 bits as the last step.

Pillow has no 16-bit colour: it keeps the upper byte of each value. A second decoding, with the byte order swapped,
gives the lower one.
"""

from __future__ import annotations

import sys
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from uniad_ray.archive.images.opening import ImageLimits, has_separate_planes, open_image, pillow_errors
from uniad_ray.errors import ImageError

SIXTEEN_BIT_MODES: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
LARGEST: Final = 65535
_NATIVE: Final = ";16L" if sys.byteorder == "little" else ";16B"
_SWAPPED: Final = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if _NATIVE == ";16L" else ";16L"}
_MAY_HAVE_SIXTEEN_BITS: Final = (b"\x89PNG", b"II", b"MM")
_GREY_ALPHA: Final = "LA;16B"


class SixteenBits(NamedTuple):
    """Pixels of an image with 16 bits a channel.

    Attributes:
        values: uint16, shape (H, W) for grey, (H, W, 3) for RGB.
        alpha: uint16, shape (H, W); None without.
    """

    values: npt.NDArray[np.uint16]
    alpha: npt.NDArray[np.uint16] | None = None


def has_sixteen_bits(image: Any) -> bool:
    """Whether an opened image that is not loaded yet has more than 8 bits a channel."""
    return image.mode in SIXTEEN_BIT_MODES or image.mode == "I" or _raw_mode(image)[-4:] in _SWAPPED


def file_has_sixteen_bits(data: bytes, limits: ImageLimits) -> bool:
    """Whether an encoded image has more than 8 bits a channel; no pixel is decoded. False for what is no image."""
    if not data.startswith(_MAY_HAVE_SIXTEEN_BITS) or (data.startswith(b"\x89PNG") and data[24:25] != b"\x10"):
        return False
    try:
        return has_sixteen_bits(open_image(data, limits)[0])
    except ImageError:
        return False


def read_sixteen_bits(data: bytes, limits: ImageLimits) -> SixteenBits:
    """Decodes an image for which `has_sixteen_bits` is true, with all bits.

    Of TIFF files with colours that are multiplied by alpha, or in separate planes, only the upper byte is kept.

    Args:
        data: The encoded file.
        limits: Limits of the image.

    Raises:
        ImageError: As `decode_image`.
    """
    image, format_name = open_image(data, limits)
    raw = _raw_mode(image)
    with pillow_errors(format_name):
        if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
            image.load()
            return SixteenBits(grey_values(image))
        if raw == _GREY_ALPHA and image.mode == "RGBA":
            # As RGBA, the four bands are the four bytes of a pixel.
            _set_raw_mode(image, "RGBA")
            image.load()
            grey, alpha = np.moveaxis(np.array(image).view(">u2").astype(np.uint16), -1, 0)
            return SixteenBits(grey, alpha)
        image.load()
        upper = np.asarray(image).astype(np.uint16)
        if raw.startswith("RGBa") or raw == _GREY_ALPHA or has_separate_planes(image):
            values = upper * np.uint16(257)
        else:
            other, _ = open_image(data, limits)
            _set_raw_mode(other, raw[:-4] + _SWAPPED[raw[-4:]])
            other.load()
            values = upper << np.uint16(8) | np.asarray(other)
    if image.mode in ("LA", "RGBA"):
        return SixteenBits(np.squeeze(values[..., :-1], -1) if image.mode == "LA" else values[..., :3], values[..., -1])
    return SixteenBits(values)


def grey_values(image: Any) -> npt.NDArray[np.uint16]:
    """Values of a loaded image in mode `I` or with 16-bit grey: uint16, shape (H, W).

    Raises:
        ImageError: `unsupported`: a value is outside of 0..65535.
    """
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > LARGEST):
        raise ImageError(
            "unsupported", "integer pixels outside 0..65535 have no known value range; convert to 8 or 16 bits"
        )
    return values.astype(np.uint16)


def scale(image: SixteenBits, size: tuple[int, int], value_range: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Stretches an image to a size in single precision, then scales it to 8 bits; alpha is composited on white.

    Args:
        image: The pixels.
        size: Height and width of the result, pixels.
        value_range: Values that become 0 and 255; those outside become 0 or 255 too.

    Returns:
        uint8, shape (height, width, 3), RGB.
    """
    low, high = value_range
    opaque = None if image.alpha is None else image.alpha.astype(np.float32) / np.float32(LARGEST)
    bands = image.values[..., None] if image.values.ndim == 2 else image.values
    scaled = np.empty((*size, bands.shape[2]), dtype=np.uint8)
    for index in range(bands.shape[2]):
        band = bands[..., index].astype(np.float32)
        if opaque is not None:
            band = high + (band - high) * opaque
        found = Image.fromarray(np.ascontiguousarray(band)).resize(size[::-1], Image.Resampling.BILINEAR)
        levels = (np.asarray(found) - np.float32(low)) * np.float32(255 / (high - low))
        scaled[..., index] = np.rint(np.clip(levels, 0, 255))
    return scaled if scaled.shape[2] == 3 else np.repeat(scaled, 3, axis=2)


def _raw_mode(image: Any) -> str:
    """How the pixels are stored, as Pillow's decoders name it; empty if there is nothing to load."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0].args
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _set_raw_mode(image: Any, raw_mode: str) -> None:
    image.tile = [
        tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *tile.args[1:]))
        for tile in image.tile
    ]
