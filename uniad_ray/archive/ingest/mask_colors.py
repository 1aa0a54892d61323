"""Turns masks whose colours name the defects into masks of grey values."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from uniad_ray.archive.images.opening import ImageLimits, open_image, pillow_errors
from uniad_ray.errors import ImageError

Classes = Sequence[Mapping[str, str]]
"""`color` as `#rrggbb` and `name` of each class; the background comes first with an empty name."""


def class_names(classes: Classes) -> dict[int, str]:
    """Names of the defects by the grey value of a converted mask; empty for no classes."""
    return {value: entry["name"] for value, entry in enumerate(classes) if value}


def labelled_mask(data: bytes, classes: Classes, limits: ImageLimits) -> bytes:
    """Replaces each colour of a mask by the position of its class, so that the background is 0.

    Args:
        data: The encoded mask.
        classes: Classes of the mask, at most 256.
        limits: Limits of the mask.

    Returns:
        An 8-bit grey PNG of the same size.

    Raises:
        ImageError: The file cannot be decoded, or a pixel has a colour of no class.
    """
    image, format_name = open_image(data, limits)
    with pillow_errors(format_name):
        pixels = np.asarray(image.convert("RGB"), dtype=np.int64)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    values = np.full(codes.shape, -1, dtype=np.int64)
    for value, entry in enumerate(classes):
        values[codes == int(entry["color"][1:], 16)] = value
    unknown = values < 0
    if unknown.any():
        row, column = (int(found[0]) for found in np.nonzero(unknown))
        raise ImageError(
            "unsupported",
            f"{int(unknown.sum())} pixels have colors that are not in the color map, first #{codes[row, column]:06x} "
            f"in row {row}, column {column}",
        )
    sink = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(sink, "PNG")
    return sink.getvalue()
