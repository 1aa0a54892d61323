"""Load images from files, URIs, encoded bytes, Pillow images and arrays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from uniad_ray.archive.images import (
    DEFAULT_LIMITS,
    ImageLimits,
    decode_image,
    displayed_size,
    probe_image,
    stretch_image,
    stretch_values,
)
from uniad_ray.archive.images.opening import check_pixels
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import ImageError

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | np.ndarray | Image.Image"
"""A path, `s3://` URI, encoded file, Pillow image, or array: uint8 or uint16, shape (H, W, 3), RGB, or (H, W), grey."""


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image at the requested size.

    Attributes:
        pixels: uint8, shape (height, width, 3), RGB.
        size: Displayed height and width of the original image, pixels.
    """

    pixels: np.ndarray
    size: tuple[int, int]


def load_image(
    source: ImageSource,
    size: tuple[int, int] | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
    value_range: ValueRange | None = None,
) -> LoadedImage:
    """Load an image, and stretch it to a size as `decode_image` does.

    A Pillow image or an array gives the same pixels as a lossless file of it. Large JPEG files are decoded at a reduced
    scale, so a Pillow image of such a file gives slightly different pixels.

    Args:
        source: The image.
        size: Height and width of the result, pixels; None keeps the size of the image.
        limits: Maximum size of the image.
        value_range: Values of images with 16 bits a channel that become black and white; see `decode_image`.

    Raises:
        ImageError: The image cannot be decoded, is too large, or has an unsupported type or shape.
        StoreError: The path or URI cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        data = Location.parse(source).read_bytes(max_bytes=limits.max_bytes)
        try:
            return _decoded(data, size, limits, value_range)
        except ImageError as error:
            raise ImageError(error.kind, f"{os.fspath(source)}: {error}") from error
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decoded(bytes(source), size, limits, value_range)
    if isinstance(source, np.ndarray) and source.dtype == np.uint16:
        _check_shape(source)
        own = (source.shape[0], source.shape[1])
        check_pixels(own, limits)
        return LoadedImage(stretch_values(source, size or own, value_range), own)
    image = source if isinstance(source, Image.Image) else _picture(source)
    own = displayed_size(image)
    return LoadedImage(stretch_image(image, size or own, limits, value_range), own)


def _decoded(
    data: bytes, size: tuple[int, int] | None, limits: ImageLimits, value_range: ValueRange | None
) -> LoadedImage:
    info = probe_image(data, limits)
    own = (info.height, info.width)
    return LoadedImage(decode_image(data, size or own, limits, value_range), own)


def _picture(source: Any) -> Any:
    """Convert an array to a Pillow image."""
    if not isinstance(source, np.ndarray):
        raise ImageError(
            "unsupported",
            f"an object of type {type(source).__name__} is not an image; give a path, an s3:// URI, bytes, "
            "a Pillow image, or a uint8 or uint16 array",
        )
    _check_shape(source)
    return Image.fromarray(np.ascontiguousarray(source))


def _check_shape(source: np.ndarray) -> None:
    is_colour = source.ndim == 3 and source.shape[2] == 3
    if source.dtype not in (np.uint8, np.uint16) or not (source.ndim == 2 or is_colour):
        raise ImageError(
            "unsupported",
            f"an array of {source.dtype} with shape {source.shape} is not an image; "
            "give uint8 or uint16 with shape (H, W, 3), RGB, or (H, W), grey",
        )
    if source.size == 0:
        raise ImageError("empty", f"the array has no pixels: its shape is {source.shape}")
