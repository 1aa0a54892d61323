"""Measurements of a label map: amount, regions, spread and thickness of each label."""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from scipy import ndimage

from uniad_ray.perception.segmentation.regions import find_regions

Feature = Literal[
    "area", "regions", "largest", "row_spread", "column_spread", "tilt",
    "depth_1", "depth_2", "depth_3", "depth_4", "depth_5", "depth_6",
]  # fmt: skip

DEPTHS: Final[tuple[Feature, ...]] = ("depth_1", "depth_2", "depth_3", "depth_4", "depth_5", "depth_6")
FEATURES: Final[tuple[Feature, ...]] = (
    "area", "regions", "largest", "row_spread", "column_spread", "tilt", *DEPTHS
)  # fmt: skip
"""Measurements of one label.

`area` is the fraction of the image, `regions` the logarithm of one plus the number of connected regions, and `largest`
the logarithm of the largest region's fraction of the image. `row_spread` and `column_spread` are the standard
deviations of the places of its pixels as fractions of height and width, and `tilt` is ten times their covariance.
`depth_1` to `depth_6` are square roots of fractions of the image: of the pixels whose distance to another label lies in
one of six classes. They tell shapes apart also where parts touch, because they add up over parts, whatever their angle.
"""
DEPTH_BOUNDS: Final = np.array([0.005, 0.01, 0.017, 0.028, 0.05])
"""Bounds of the six classes of distance, as fractions of the longest side."""
SMALLEST_CHANGES: Final = np.array([0.002, 0.1, 0.1, 0.005, 0.005, 0.01] + [0.005] * len(DEPTHS))
"""Smallest meaningful change of each measurement; noise causes smaller ones."""
_SMALLEST_REGION: Final = 0.0005
_LARGEST_REGION: Final = 0.5
ABSENT: Final = np.array([0.0, 0.0, math.log(_SMALLEST_REGION), 0.0, 0.0, 0.0] + [0.0] * len(DEPTHS))
"""Measurements of a label without pixels."""


def label_features(labels: np.ndarray, count: int) -> np.ndarray:
    """Measures every label of one image.

    Args:
        labels: uint8, shape (h, w), values below `count`.
        count: Number of labels K.

    Returns:
        float64, shape (K, F), finite: the `FEATURES` of each label. A label without pixels has no regions, no spread
        and a largest region of the smallest size.
    """
    height, width = labels.shape
    found = np.zeros((count, len(FEATURES)))
    depths = _depth_classes(labels)
    for label in range(count):
        mask = labels == label
        regions = find_regions(mask, _SMALLEST_REGION, _LARGEST_REGION)
        areas = np.bincount(regions.ravel())[1:] / labels.size
        rows, columns = mask.sum(axis=1), mask.sum(axis=0)
        pixels = max(int(rows.sum()), 1)
        row, column = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        mean_row, mean_column = float(rows @ row) / pixels, float(columns @ column) / pixels
        together = float((mask @ column) @ row) / pixels - mean_row * mean_column
        found[label] = (
            rows.sum() / labels.size,
            math.log1p(len(areas)),
            math.log(max(areas.max(initial=0.0), _SMALLEST_REGION)),
            math.sqrt(max(float(rows @ row**2) / pixels - mean_row**2, 0.0)),
            math.sqrt(max(float(columns @ column**2) / pixels - mean_column**2, 0.0)),
            10.0 * together,
            *np.sqrt(np.bincount(depths[mask], minlength=len(DEPTHS)) / labels.size),
        )
    return found


def _depth_classes(labels: np.ndarray) -> np.ndarray:
    """Class of the distance of each pixel to the nearest one of another label: int64, shape (h, w), in 0..5."""
    is_edge = np.zeros(labels.shape, dtype=bool)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        pad = [(0, 0), (0, 0)]
        pad[axis] = (0, 1)
        is_edge |= np.pad(differs, pad)
        pad[axis] = (1, 0)
        is_edge |= np.pad(differs, pad)
    if not is_edge.any():
        return np.full(labels.shape, len(DEPTH_BOUNDS))
    distance = 1.0 + ndimage.distance_transform_edt(~is_edge)
    return np.asarray(np.searchsorted(DEPTH_BOUNDS * max(labels.shape), distance))
