"""The spread of measurements among normal images, and the distance of new ones from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np

from uniad_ray.errors import BundleError
from uniad_ray.experts.shared.shrunk_precision import shrunk_precision

_FOLDS: Final = 5
_LEAST_DEVIATION: Final = 0.05
"""Smallest standard deviation of the distance; identical images would make noise look unusual."""

_LARGEST_CHANGE: Final = 20.0
"""Bound of a measurement's change, in its scale; measurements that never vary would outweigh all others."""


class Changes(NamedTuple):
    """What anomalies change.

    Attributes:
        values: float64, shape (A, F): measurements of altered images minus those of the originals.
        owners: int64, shape (A,): row of each original.
    """

    values: np.ndarray
    owners: np.ndarray


@dataclass(frozen=True)
class NormalSpread:
    """Mean and covariance of the F measurements of normal images.

    Attributes:
        centre: float64, shape (F,): the mean of each measurement.
        scale: float64, shape (F,), > 0: its standard deviation, at least the smallest meaningful change.
        precision: float64, shape (F, F): the matrix of the squared distance of scaled measurements: their inverse
            covariance, or its response to what anomalies change.
        bounds: float64, shape (2, F): the smallest and the largest measurement.
        usual_distance: float64, shape (2,): mean and standard deviation of the distance of images that were left out.
    """

    centre: np.ndarray
    scale: np.ndarray
    precision: np.ndarray
    bounds: np.ndarray
    usual_distance: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, smallest_changes: np.ndarray, changes: Changes | None = None) -> Self:
        """Learns the spread; the distances of normal images come from cross-validation.

        Args:
            rows: float64, shape (M, F), M >= 2.
            smallest_changes: float64, shape (F,): smallest meaningful change of each measurement.
            changes: What anomalies change; None counts every direction alike.
        """
        folds = np.arange(len(rows)) % min(_FOLDS, len(rows))
        distances = np.zeros(len(rows))
        for fold in range(int(folds.max()) + 1):
            kept = folds != fold
            known = None if changes is None else changes.values[kept[changes.owners]]
            distances[~kept] = _distances(rows[~kept], *_moments(rows[kept], smallest_changes, known))
        usual = np.array([distances.mean(), max(distances.std(), _LEAST_DEVIATION)])
        return cls(
            *_moments(rows, smallest_changes, None if changes is None else changes.values),
            bounds=np.stack([rows.min(axis=0), rows.max(axis=0)]),
            usual_distance=usual,
        )

    def terms(self, row: np.ndarray) -> np.ndarray:
        """Contribution of each measurement to the squared distance, which is their sum: float64, shape (F,)."""
        scaled = (row - self.centre) / self.scale
        return np.asarray(scaled * (self.precision @ scaled) / len(scaled))

    def deviation(self, terms: np.ndarray) -> float:
        """The distance in standard deviations of left-out normal images, from the result of `terms`."""
        return float((np.sqrt(max(float(terms.sum()), 0.0)) - self.usual_distance[0]) / self.usual_distance[1])

    def arrays(self) -> dict[str, np.ndarray]:
        """The spread as arrays."""
        return {name: getattr(self, name) for name in _SHAPES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], features: int) -> Self:
        """Restores the spread.

        Raises:
            BundleError: An array is missing, or not for this number of measurements.
        """
        if any(
            name not in arrays or arrays[name].shape != tuple(side or features for side in shape)
            for name, shape in _SHAPES.items()
        ):
            raise BundleError("the bundle has no normal spread of these measurements; fit the category again")
        return cls(**{name: np.asarray(arrays[name], dtype=np.float64) for name in _SHAPES})


_SHAPES: Final = {"centre": (0,), "scale": (0,), "precision": (0, 0), "bounds": (2, 0), "usual_distance": (2,)}
"""Shape of each array; 0 stands for the number of measurements."""


def _moments(
    rows: np.ndarray, smallest_changes: np.ndarray, changes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, scale and precision of measurements."""
    centre = rows.mean(axis=0)
    scale = np.maximum(rows.std(axis=0), smallest_changes)
    precision = shrunk_precision((rows - centre) / scale)
    if changes is not None and len(changes):
        precision = _of_changes(precision, np.clip(changes / scale, -_LARGEST_CHANGE, _LARGEST_CHANGE))
    return centre, scale, precision


def _of_changes(precision: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """The matrix of the mean squared response to the matched filter of each change.

    The log-odds of two Gaussians whose means differ by a change d, with one covariance, are linear: d P x. Their mean
    square over all changes is x P E[d d] P x. Directions that no anomaly changes have no weight.

    Args:
        precision: P, float64, shape (F, F).
        changes: float64, shape (A, F), A >= 1, scaled.
    """
    filters = changes @ precision
    return np.asarray(filters.T @ filters / len(filters))


def _distances(rows: np.ndarray, centre: np.ndarray, scale: np.ndarray, precision: np.ndarray) -> np.ndarray:
    scaled = (rows - centre) / scale
    squared = np.einsum("ij,jk,ik->i", scaled, precision, scaled) / rows.shape[1]
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))
