"""Label maps of an image by k-means on its colours, at several numbers of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import ndimage

from uniad_ray.perception.colours import cielab
from uniad_ray.perception.segmentation.clustering import cluster_centres

_PIXELS_AN_IMAGE: Final = 3000
_RESTARTS: Final = 3
# Exchanges that bring the median of nine values to the middle (Paeth, Graphics Gems, 1990): ten times as fast as scipy.
_EXCHANGES: Final = (
    *((1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 3)),
    *((5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2)),
)
_BIN: Final = 4.0
"""Side of the bins of CIELAB in which colours are counted: about what the eye takes for one colour."""
_LARGE: Final = 400
"""Longest side, pixels, from which the grain of a picture spans several pixels."""


def smoothed_colours(image: np.ndarray) -> np.ndarray:
    """CIELAB colours without grain: a median of 3 x 3 pixels keeps edges; a large image gets two.

    Args:
        image: uint8, shape (H, W, 3), RGB.

    Returns:
        float32, shape (H, W, 3).
    """
    median = _median_of_nine(image)
    return cielab(_median_of_nine(median) if max(image.shape[:2]) >= _LARGE else median)


def colour_centres(
    colours: Sequence[np.ndarray], numbers: Sequence[int], seed: int, rarity: float = 0.0
) -> dict[int, np.ndarray]:
    """Clusters the colours of several images.

    Args:
        colours: The colours of each image, float32, shape (H, W, 3).
        numbers: Numbers of clusters K.
        seed: Seed of the sample of pixels and of k-means.
        rarity: How much rare colours count, in 0..1. At 0 every pixel counts as much, and a small part in a colour of
            its own may get no cluster; at 1 every colour does, however many pixels have it.

    Returns:
        The centres by K, float32, shape (K, 3), the largest cluster first; without the numbers for which the images
        have too few colours.
    """
    rng = np.random.default_rng(seed)
    sample = np.concatenate(
        [
            pixels[rng.choice(len(pixels), min(_PIXELS_AN_IMAGE, len(pixels)), replace=False)]
            for pixels in map(_flat, colours)
        ]
    )
    if rarity:
        sample = sample[rng.choice(len(sample), len(sample), p=_rarities(sample, rarity))]
    distinct = len(np.unique(sample, axis=0))
    return {number: cluster_centres(sample, number, _RESTARTS, seed) for number in numbers if number <= distinct}


def nearest_centre(colours: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The index of the nearest centre of each pixel: uint8, shape (H, W); the same on any number of threads.

    Args:
        colours: float32, shape (H, W, 3).
        centres: float32, shape (K, 3), K at most 255.
    """
    nearest = np.zeros(colours.shape[:2], dtype=np.uint8)
    smallest = np.full(colours.shape[:2], np.inf, dtype=np.float32)
    for number, centre in enumerate(centres):
        first, second, third = (colours[..., channel] - centre[channel] for channel in range(3))
        distance = first * first + second * second + third * third
        closer = distance < smallest
        nearest[closer] = number
        np.minimum(smallest, distance, out=smallest)
    return nearest


def edge_ranks(colours: np.ndarray) -> np.ndarray:
    """The strength of the edge at each pixel, as its rank among the pixels of the image.

    Args:
        colours: float32, shape (H, W, 3).

    Returns:
        float32, shape (H, W), in 0..1; pixels with equal gradients have equal ranks.
    """
    squared = np.zeros(colours.shape[:2], dtype=np.float32)
    for channel in range(3):
        for order in ((0, 1), (1, 0)):
            squared += ndimage.gaussian_filter(colours[..., channel], 1.0, order=order) ** 2
    ascending = np.sort(squared, axis=None)
    return (np.searchsorted(ascending, squared) / squared.size).astype(np.float32)


def _rarities(colours: np.ndarray, rarity: float) -> np.ndarray:
    """Probability of each colour, by how few pixels have nearly the same: float64, shape (n,)."""
    _, bins, counts = np.unique(np.floor(colours / _BIN), axis=0, return_inverse=True, return_counts=True)
    weights = counts[bins.ravel()] ** -rarity
    return np.asarray(weights / weights.sum())


def _median_of_nine(image: np.ndarray) -> np.ndarray:
    """The median of 3 x 3 pixels in each channel: uint8, shape (H, W, 3); the border is reflected."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="symmetric")
    values = [padded[row : row + height, column : column + width] for row in range(3) for column in range(3)]
    for one, other in _EXCHANGES:
        values[one], values[other] = np.minimum(values[one], values[other]), np.maximum(values[one], values[other])
    return values[4]


def _flat(colours: np.ndarray) -> np.ndarray:
    return colours.reshape(-1, 3)
