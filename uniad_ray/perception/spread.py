"""Spread of vectors, used to weight the vectors of different fields."""

from __future__ import annotations

import numpy as np


def spread(vectors: np.ndarray) -> float:
    """Root mean square distance of vectors to their mean.

    Args:
        vectors: float, shape (n, D).

    Returns:
        At least 1e-6, so it is safe to divide by; 1 if there are no vectors.
    """
    if not len(vectors):
        return 1.0
    deviations = vectors - vectors.mean(axis=0, dtype=np.float64)
    return max(float(np.sqrt(np.square(deviations).sum(axis=1).mean())), 1e-6)
