"""How much vectors vary, so that vectors of different fields can be weighed against each other."""

from __future__ import annotations

import numpy as np


def spread(vectors: np.ndarray) -> float:
    """The root mean square distance of vectors to their mean.

    Args:
        vectors: float, shape (n, D).

    Returns:
        Never below 1e-6, so that it can divide; 1 where there are no vectors.
    """
    if not len(vectors):
        return 1.0
    deviations = vectors - vectors.mean(axis=0, dtype=np.float64)
    return max(float(np.sqrt(np.square(deviations).sum(axis=1).mean())), 1e-6)
