"""Anomaly maps as histogram bins: a float16 has one of 65,536 values, so a histogram is lossless."""

from __future__ import annotations

import numpy as np
from PIL import Image

BINS = 2**16
"""Number of bins, one per float16 value."""

_MAGNITUDE = np.int16(0x7FFF)
_INFINITY = 0x7C00
_OFFSET = np.uint16(2**15)


def map_bins(anomaly_map: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resizes a map and numbers its values in ascending order.

    Args:
        anomaly_map: Float, shape (h, w), finite, higher is more anomalous. It is resized (PIL, bilinear, pixel centres
            at half-integers, antialiased when it shrinks) in float32, and rounded to float16.
        shape: The target shape (H, W).

    Returns:
        uint16, shape (H, W), in the same order as the float16 values; both zeros share a bin.

    Raises:
        ValueError: The shape or dtype is wrong, or a value is not finite as float16.
    """
    if anomaly_map.ndim != 2 or not np.issubdtype(anomaly_map.dtype, np.floating) or anomaly_map.size == 0:
        raise ValueError(f"the map must be float (h, w), not {anomaly_map.dtype} {anomaly_map.shape}")
    with np.errstate(over="ignore"):
        resized = anomaly_map
        if anomaly_map.shape != shape:
            height, width = shape
            image = Image.fromarray(anomaly_map.astype(np.float32))
            resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        rounded = resized.astype(np.float16, copy=False)
    bits = rounded.view(np.int16)
    magnitude = bits & _MAGNITUDE
    if magnitude.max() >= _INFINITY:
        raise ValueError("the map must be finite, and within the range of float16 (65504)")
    # From sign and magnitude to two's complement, where both zeros are equal, and from there to an offset.
    negative = bits >> 15
    return ((magnitude ^ negative) - negative).view(np.uint16) ^ _OFFSET
