"""Conversion of colours to CIELAB, in which distances are close to what a person sees."""

from __future__ import annotations

from typing import Final

import numpy as np

# IEC 61966-2-1 (sRGB) to CIE XYZ.
_RGB_TO_XYZ: Final = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


_XYZ_OF_WHITE_IS_ONE: Final = (_RGB_TO_XYZ / _RGB_TO_XYZ.sum(axis=1, keepdims=True)).T.astype(np.float32)
_ENCODED: Final = np.arange(256) / 255.0
_LINEAR: Final = np.where(_ENCODED <= 0.04045, _ENCODED / 12.92, ((_ENCODED + 0.055) / 1.055) ** 2.4).astype(np.float32)


def cielab(image: np.ndarray) -> np.ndarray:
    """The CIELAB colour of each pixel, under D65.

    Args:
        image: uint8, shape (..., 3), sRGB.

    Returns:
        float32, shape (..., 3): L in 0..100, a (green to red) and b (blue to yellow), both 0 for greys and within about
        -110..100.
    """
    xyz = _LINEAR[image] @ _XYZ_OF_WHITE_IS_ONE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * np.float32((29 / 6) ** 2 / 3) + np.float32(4 / 29))
    colours: np.ndarray = np.empty_like(xyz)
    colours[..., 0] = 116.0 * f[..., 1] - 16.0
    colours[..., 1] = 500.0 * (f[..., 0] - f[..., 1])
    colours[..., 2] = 200.0 * (f[..., 1] - f[..., 2])
    return colours
