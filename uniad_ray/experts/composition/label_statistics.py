"""Where the labels of a label map lie in normal images, and the colours they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np

from uniad_ray.errors import BundleError
from uniad_ray.perception.grids import evenly_spaced


class LabelStatistics:
    """Integer sums over images, so the order of the images has no effect."""

    def __init__(self, map_size: int) -> None:
        """Starts without images and without labels.

        Args:
            map_size: Side of the map of places.
        """
        self._side = map_size
        self._images = 0
        self._counts = np.zeros((0, map_size, map_size), dtype=np.int64)
        self._pixels = np.zeros(0, dtype=np.int64)
        self._colours = np.zeros((0, 3), dtype=np.int64)

    def add(self, labels: np.ndarray, image: np.ndarray) -> None:
        """Adds one image.

        Args:
            labels: uint8, shape (h, w).
            image: uint8, shape (H, W, 3), RGB.
        """
        count = max(int(labels.max()) + 1, self.labels)
        more = count - self.labels
        self._counts = np.pad(self._counts, ((0, more), (0, 0), (0, 0)))
        self._pixels, self._colours = np.pad(self._pixels, (0, more)), np.pad(self._colours, ((0, more), (0, 0)))
        on_map = evenly_spaced(labels, self._side, self._side)
        self._counts += on_map == np.arange(count)[:, None, None]
        colours = evenly_spaced(image, self._side, self._side)
        self._pixels += np.bincount(on_map.ravel(), minlength=count)
        for channel in range(3):
            sums = np.bincount(on_map.ravel(), weights=colours[..., channel].ravel(), minlength=count)
            self._colours[:, channel] += sums.astype(np.int64)
        self._images += 1

    @property
    def labels(self) -> int:
        """Number of labels K in the images so far."""
        return len(self._pixels)

    @property
    def occupancy(self) -> np.ndarray:
        """Fraction of the images with a label at a pixel of the map: float32, shape (K, map_size, map_size)."""
        return (self._counts / max(self._images, 1)).astype(np.float32)

    @property
    def colours(self) -> np.ndarray:
        """Mean colour of each label: float64, shape (K, 3), RGB in 0..1."""
        return np.asarray(self._colours / np.maximum(self._pixels, 1)[:, None] / 255.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """The sums as arrays."""
        images = np.array([self._images], dtype=np.int64)
        return {"images": images, "counts": self._counts, "pixels": self._pixels, "colours": self._colours}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], map_size: int) -> Self:
        """Restores the sums.

        Raises:
            BundleError: An array is missing, or the shapes do not match each other and the size of the map.
        """
        found = {name: arrays.get(name) for name in ("images", "counts", "pixels", "colours")}
        pixels = found["pixels"]
        labels = 0 if pixels is None else len(pixels)
        shapes = {
            "images": (1,), "counts": (labels, map_size, map_size), "pixels": (labels,), "colours": (labels, 3)
        }  # fmt: skip
        if not labels or any(array is None or array.shape != shapes[name] for name, array in found.items()):
            raise BundleError("the bundle has no label statistics of this map size; fit the category again")
        restored = cls(map_size)
        restored._images = int(arrays["images"][0])
        restored._counts, restored._pixels, restored._colours = arrays["counts"], arrays["pixels"], arrays["colours"]
        return restored
