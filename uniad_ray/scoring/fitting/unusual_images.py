"""Find normal images that differ from the rest of their category, as a warning before a bundle is published."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from uniad_ray.perception.base import Perception
from uniad_ray.perception.region import Region

MIN_IMAGES = 8
"""Minimum number of images for the comparison."""
_LIMIT = 10.0
_TO_DEVIATION = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


class UnusualImages:
    """Collect one descriptor per image: the mean over space of its pixels and of every field."""

    def __init__(self, region: Region | None = None) -> None:
        """Start empty.

        Args:
            region: Part of the images that counts; the paint outside is no second colour.
        """
        self._region = region
        self._descriptors: dict[str, np.ndarray] = {}
        self._plain: set[str] = set()
        self._incomplete: set[str] = set()

    def add(self, perception: Perception) -> None:
        """Add a batch; a repeated image counts once."""
        means = [field.float().mean(dim=(2, 3)).cpu().numpy() for field in perception.fields.values()]
        pixels = perception.images.reshape(len(perception), -1, 3)
        pixels = pixels if self._region is None else pixels[:, self._region.inside.ravel()]
        flat = (pixels.min(axis=1) == pixels.max(axis=1)).all(axis=1)
        lacking = perception.lacking(perception.names)
        for index, key in enumerate(perception.row_keys):
            if flat[index]:
                self._plain.add(key)
            if key in lacking and key not in self._descriptors:
                # Without a text it has no comparable descriptor, but it counts as an image.
                self._incomplete.add(key)
                continue
            parts = [pixels[index].mean(axis=0) / 255.0, *(mean[index] for mean in means)]
            self._descriptors[key] = np.concatenate([_unit(part) for part in parts])

    def find(self, left_out: Collection[str] = ()) -> dict[str, str]:
        """Return the unusual images with the reason, by row key: images of one colour, and outliers.

        An image is an outlier if the distance of its descriptor to the median descriptor exceeds the median distance by
        more than ten robust deviations. The estimates tolerate up to half of the images being foreign.

        Args:
            left_out: Keys of images to ignore.
        """
        found = dict.fromkeys(self._plain.difference(left_out), "has a single colour")
        keys = sorted(self._descriptors.keys() - self._plain - set(left_out))
        if len(keys) >= MIN_IMAGES:
            distances = _distances([self._descriptors[key] for key in keys])
            middle = float(np.median(distances))
            spread = max(_TO_DEVIATION * float(np.median(np.abs(distances - middle))), 0.1 * middle)
            for key, distance in zip(keys, distances, strict=True):
                if distance > middle + _LIMIT * spread:
                    found[key] = "differs from the other normal images; check its category"
        return dict(sorted(found.items()))

    def all_plain(self) -> bool:
        """Whether there are images and every image has a single colour."""
        return bool(self._plain) and len(self._plain) == len(self._descriptors.keys() | self._incomplete)


def _unit(values: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(values))
    return np.asarray(values / length if length > 0 else values, dtype=np.float64)


def _distances(descriptors: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack(descriptors)
    return np.asarray(np.linalg.norm(stacked - np.median(stacked, axis=0), axis=1))
