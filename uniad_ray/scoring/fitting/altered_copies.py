"""Altered copies of normal images, to augment small categories.

A copy imitates another photo of the same product: slightly shifted, rotated and relit. Copies are never mirrored,
because a part on the other side is a logical anomaly.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from scipy import ndimage

from uniad_ray.scoring.fitting.perceptions import NormalImage

_MOST_SHIFT: Final = 0.02
_MOST_DEGREES: Final = 2.0
_MOST_BRIGHTNESS: Final = 8.0
_MOST_CONTRAST: Final = 0.08


def copies_of(images: Sequence[NormalImage], each: int) -> list[NormalImage]:
    """Return `each` altered copies per image, determined by the keys of the image."""
    return [
        replace(
            image,
            row_key=_digest(image.row_key, number)[:32],
            image_id=_digest(image.image_id, number),
            copy_of=image.row_key,
        )
        for image in images
        for number in range(each)
    ]


def altered(image: np.ndarray, row_key: str) -> np.ndarray:
    """Shift by up to 2 % of the side, rotate by up to 2 degrees, and change contrast by up to 8 %, brightness by 8.

    Args:
        image: uint8, shape (H, W, 3), RGB.
        row_key: Key of the copy; seeds the random numbers.

    Returns:
        uint8, shape (H, W, 3); the border is repeated outside the image.
    """
    rng = np.random.default_rng(int(hashlib.sha256(row_key.encode()).hexdigest()[:16], 16))
    sides = np.array(image.shape[:2], dtype=float)
    angle = math.radians(rng.uniform(-_MOST_DEGREES, _MOST_DEGREES))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = (sides - 1) / 2
    offset = centre - turn @ centre + rng.uniform(-_MOST_SHIFT, _MOST_SHIFT, size=2) * sides
    moved = np.stack(
        [
            ndimage.affine_transform(image[..., channel].astype(np.float32), turn, offset, order=1, mode="nearest")
            for channel in range(3)
        ],
        axis=-1,
    )
    contrast = 1.0 + rng.uniform(-_MOST_CONTRAST, _MOST_CONTRAST)
    brightness = rng.uniform(-_MOST_BRIGHTNESS, _MOST_BRIGHTNESS)
    middle = moved.mean()
    return np.asarray(np.clip(np.rint((moved - middle) * contrast + middle + brightness), 0, 255), dtype=np.uint8)


def _digest(key: str, number: int) -> str:
    return hashlib.sha256(f"{key} copy {number}".encode()).hexdigest()
