"""The bank of component features: standardised normal images, with nearest-neighbour search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np

from uniad_ray.errors import BundleError

Standardise = Literal["plain", "robust"]

# For a normal distribution, the standard deviation is 1.4826 times the median absolute deviation.
_MAD_TO_DEVIATION = 1.4826


class ComponentBank:
    """Standardised component features of normal images, with exact nearest neighbours (UniAD, section 3.4).

    Rows are sorted by row key: the bank depends only on the images. It takes 8 F bytes per image.

    Attributes:
        row_keys: The M row keys, ascending.
        features: float64, shape (M, F), before standardisation.
        centre: float64, shape (F,): mean or median of each feature.
        scale: float64, shape (F,), > 0: deviation of each feature.
    """

    def __init__(self, row_keys: Sequence[str], features: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> None:
        """Assembles the bank from its parts; use `fit` or `from_arrays` instead."""
        self.row_keys = tuple(row_keys)
        self.features = features
        self.centre = centre
        self.scale = scale
        self._standardised = self.standardised(features)

    @classmethod
    def fit(
        cls,
        row_keys: Sequence[str],
        features: np.ndarray,
        standardise: Standardise = "plain",
        smallest_scale: np.ndarray | float = 1e-9,
    ) -> Self:
        """Builds the bank; the order of the rows has no effect.

        Args:
            row_keys: M keys, M >= 1.
            features: float64, shape (M, F), finite.
            standardise: `plain` uses mean and standard deviation of each feature. `robust` uses the median and 1.4826
                times the median absolute deviation, which a few unusual images do not affect.
            smallest_scale: Lower bound of the deviations, a number or shape (F,): the smallest meaningful change of a
                feature. Without it, a feature that is constant in all normal images would cause a division by zero.
        """
        order = np.argsort(np.asarray(row_keys, dtype=object), kind="stable")
        rows = np.asarray(features, dtype=np.float64)[order]
        if standardise == "robust":
            centre = np.median(rows, axis=0)
            scale = _MAD_TO_DEVIATION * np.median(np.abs(rows - centre), axis=0)
        else:
            centre, scale = rows.mean(axis=0), rows.std(axis=0)
        return cls([row_keys[index] for index in order], rows, centre, np.maximum(scale, smallest_scale))

    def __len__(self) -> int:
        """Number of normal images M."""
        return len(self.row_keys)

    def standardised(self, features: np.ndarray) -> np.ndarray:
        """Features in standard deviations of the normal images: float64, shape (N, F) in and out."""
        return np.asarray((features - self.centre) / self.scale)

    def nearest(self, features: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest normal images by L2 on standardised features; ties are broken by row key.

        Args:
            features: float64, shape (N, F).
            neighbours: Number of neighbours; k is the smaller of this and M.

        Returns:
            Distances, float64, shape (N, k), ascending; and row indices of the bank, int64, shape (N, k).
        """
        count = min(neighbours, len(self))
        queries = self.standardised(features)
        distances = np.empty((len(queries), count))
        indices = np.empty((len(queries), count), dtype=np.int64)
        for row, query in enumerate(queries):
            to_all = np.sqrt(np.square(self._standardised - query).sum(axis=1))
            indices[row] = np.argsort(to_all, kind="stable")[:count]
            distances[row] = to_all[indices[row]]
        return distances, indices

    def arrays(self) -> dict[str, np.ndarray]:
        """The bank as arrays; the row keys are stored separately."""
        return {"features": self.features, "centre": self.centre, "scale": self.scale}

    @classmethod
    def from_arrays(cls, row_keys: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Self:
        """Restores a bank; its distances are exactly those of the stored bank.

        Raises:
            BundleError: An array is missing, or the shapes do not match each other and the keys.
        """
        features, centre, scale = (arrays.get(name) for name in ("features", "centre", "scale"))
        if (
            features is None
            or centre is None
            or scale is None
            or features.ndim != 2
            or not len(features)
            or len(features) != len(row_keys)
            or centre.shape != features.shape[1:]
            or scale.shape != features.shape[1:]
        ):
            raise BundleError("the bundle has no bank of component features; fit the category again")
        return cls(row_keys, features, centre, scale)
