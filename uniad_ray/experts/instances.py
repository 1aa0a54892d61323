"""Instances: the single pieces of an image's foreground, each with its place, shape, colour and appearance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from uniad_ray.experts.component_features import cielab_colour
from uniad_ray.perception.grids import evenly_spaced


@dataclass(frozen=True)
class Instances:
    """The n instances of one image.

    Attributes:
        centres: float32, shape (n, 2): row and column of the mean pixel, each in 0..1.
        boxes: float32, shape (n, 4): top, left, bottom and right, each in 0..1.
        colours: float32, shape (n, 3): mean brightness in 0..100, and mean a and b of CIELAB.
        shapes: float32, shape (n, 4): logarithms of the area, of the long and of the short half axis, as shares of the
            image and of its side; and the share of holes.
        appearance: One array a feature field, float32, shape (n, C): the field's mean over each region.
    """

    centres: np.ndarray
    boxes: np.ndarray
    colours: np.ndarray
    shapes: np.ndarray
    appearance: Sequence[np.ndarray]

    def __len__(self) -> int:
        """The number of instances n."""
        return len(self.centres)


def describe_instances(
    regions: np.ndarray, mask: np.ndarray, image: np.ndarray, fields: Sequence[torch.Tensor]
) -> Instances:
    """Describes the pieces that `uniad_ray.perception.regions.find_regions` numbered.

    Args:
        regions: uint8, shape (h, w).
        mask: bool, shape (h, w), in which the regions were found.
        image: uint8, shape (H, W, 3), RGB.
        fields: The feature fields of the image, each float32, shape (C, h', w').
    """
    count = int(regions.max(initial=0))
    pixels = np.bincount(regions.ravel(), minlength=count + 1)[1:]

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(regions.ravel(), weights=values.ravel(), minlength=count + 1)[1:]
        return np.asarray(sums / pixels, dtype=np.float32)

    rows, columns = regions.shape
    row, column = (np.indices(regions.shape) + 0.5) / np.array([rows, columns])[:, None, None]
    centres = np.stack([mean(row), mean(column)], axis=1)
    boxes = [
        (down.start / rows, across.start / columns, down.stop / rows, across.stop / columns)
        for down, across in ndimage.find_objects(regions)
    ]
    colours = evenly_spaced(image, rows, columns)
    a, b = cielab_colour(colours)
    # The variance of a single pixel keeps the axes of lines above 0.
    pixel = 1.0 / (12 * min(rows, columns) ** 2)
    row_variance = mean(np.square(row)) - np.square(centres[:, 0]) + pixel
    column_variance = mean(np.square(column)) - np.square(centres[:, 1]) + pixel
    covariance = mean(row * column) - centres[:, 0] * centres[:, 1]
    middle = (row_variance + column_variance) / 2
    half_difference = np.hypot((row_variance - column_variance) / 2, covariance)
    axes = np.sqrt([middle + half_difference, np.maximum(middle - half_difference, pixel)])
    return Instances(
        centres=centres,
        boxes=np.array(boxes, dtype=np.float32).reshape(count, 4),
        colours=np.stack([mean(colours.mean(axis=2)) / 2.55, mean(a), mean(b)], axis=1),
        shapes=np.stack([np.log(pixels / regions.size), *np.log(axes), 1.0 - mean(mask)], axis=1).astype(np.float32),
        appearance=[_means_over_regions(field, regions, count) for field in fields],
    )


def _means_over_regions(field: torch.Tensor, regions: np.ndarray, count: int) -> np.ndarray:
    """The mean of a field, shape (C, h', w'), over each region: float32, shape (n, C)."""
    channels, height, width = field.shape
    if not count:
        return np.zeros((0, channels), dtype=np.float32)
    inside = regions[None] == np.arange(1, count + 1)[:, None, None]
    shares = functional.adaptive_avg_pool2d(torch.from_numpy(inside.astype(np.float32)), (height, width)).flatten(1)
    shares = shares / shares.sum(dim=1, keepdim=True)
    return np.asarray((shares @ field.cpu().contiguous().flatten(1).T).numpy())
