"""The images that a vision-language model sees: the originals, not the stretched input of the other networks."""

from __future__ import annotations

import numpy as np

from uniad_ray.archive.image_size import fitted_size, reduced
from uniad_ray.archive.images import decode_image, probe_image
from uniad_ray.config.value_range import ValueRange
from uniad_ray.perception.base import Perception


def original_images(perception: Perception, longest_side: int | None) -> list[np.ndarray]:
    """The images of a batch in their own aspect ratio.

    An image without an original, such as an altered copy, is taken as it is in the batch.

    Args:
        perception: The batch.
        longest_side: Maximum height and width; larger images are reduced. None returns the images of the batch, for
            captioners that look at no image.

    Raises:
        ImageError: An original cannot be decoded.
    """
    if longest_side is None:
        return list(perception.images)
    originals = perception.originals
    return [
        _sized(originals.get(key, image), longest_side)
        for key, image in zip(perception.row_keys, perception.images, strict=True)
    ]


def _sized(image: bytes | np.ndarray, longest_side: int) -> np.ndarray:
    return decoded_original(image, longest_side) if isinstance(image, bytes) else reduced(image, longest_side)


def decoded_original(data: bytes, longest_side: int, value_range: ValueRange | None = None) -> np.ndarray:
    """Decodes an encoded image in its aspect ratio, with no side above `longest_side`.

    Args:
        data: The encoded file.
        longest_side: Maximum height and width of the result, pixels.
        value_range: As in `decode_image`.

    Raises:
        ImageError: The image cannot be decoded.
    """
    info = probe_image(data)
    return decode_image(data, fitted_size((info.height, info.width), longest_side), value_range=value_range)
