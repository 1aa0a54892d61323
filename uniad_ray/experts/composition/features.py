"""Measurements of a label map: amount, regions, spread and thickness of each label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from uniad_ray.perception.segmentation.regions import region_areas

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
    # One count of all pairs of a label and a class.
    pairs = labels.ravel() * np.int64(len(DEPTHS)) + _depth_classes(labels).ravel()
    depths = np.bincount(pairs, minlength=count * len(DEPTHS)).reshape(-1, len(DEPTHS))
    for label in range(count):
        mask = labels == label
        areas = region_areas(mask, _SMALLEST_REGION, _LARGEST_REGION) / labels.size
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
            *np.sqrt(depths[label] / labels.size),
        )
    return found


def _depth_classes(labels: np.ndarray) -> np.ndarray:
    """Class of the distance of each pixel to the nearest one of another label: uint8, shape (h, w), in 0..5.

    The distances are those of SciPy's `distance_transform_edt`. Only small ones matter, which makes this six times as
    fast.
    """
    is_edge = np.zeros(labels.shape, dtype=bool)
    for along, places in ((labels, is_edge), (labels.T, is_edge.T)):
        differs = along[1:] != along[:-1]
        places[1:] |= differs
        places[:-1] |= differs
    if not is_edge.any():
        return np.full(labels.shape, len(DEPTH_BOUNDS), dtype=np.uint8)
    bounds = DEPTH_BOUNDS * max(labels.shape)
    # The distance to another label is that to an edge pixel, plus one.
    reach = int(max(bounds[-1] - 1.0, 0.0))
    beyond = reach + 1
    across = np.where(is_edge, 0, beyond).astype(np.min_scalar_type(2 * beyond**2))
    squared = _least(np.square(_least(across.T, range(1, beyond)).T), [step * step for step in range(1, beyond)])
    classes = np.searchsorted(bounds, 1.0 + np.sqrt(np.arange(2 * beyond**2))).astype(np.uint8)
    return np.asarray(classes[squared])


def _least(values: np.ndarray, costs: Sequence[int]) -> np.ndarray:
    """The minimum of each value and those of its neighbours in other rows, which cost more with each row."""
    lowest = values.copy()
    for step, cost in enumerate(costs, start=1):
        costly = values + values.dtype.type(cost)
        np.minimum(lowest[:-step], costly[step:], out=lowest[:-step])
        np.minimum(lowest[step:], costly[:-step], out=lowest[step:])
    return lowest
