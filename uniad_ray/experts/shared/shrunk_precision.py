"""The inverse covariance of a few measurements of a few images."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.linalg import pinvh
from sklearn.covariance import LedoitWolf

_NO_VARIATION: Final = 1e-6
"""Largest eigenvalue of a direction without variation, relative to the largest one."""


def shrunk_precision(rows: np.ndarray) -> np.ndarray:
    """The inverse covariance of standardised features, for Mahalanobis distances.

    The covariance is shrunk after Ledoit and Wolf (2004). Then no feature may vary by less than its scale: otherwise,
    features that are constant in all normal images would have unlimited weight. Directions without any variation, such
    as the sum of fractions that add up to one, get no weight: no image can differ there.

    Args:
        rows: float64, shape (M, F), M >= 1, in units of each feature's scale.

    Returns:
        float64, shape (F, F).
    """
    covariance = LedoitWolf().fit(rows).covariance_ if len(rows) > 1 else np.zeros((rows.shape[1], rows.shape[1]))
    covariance = covariance + np.diag(np.maximum(0.0, 1.0 - np.diag(covariance)))
    return np.asarray(pinvh(covariance, rtol=_NO_VARIATION))
