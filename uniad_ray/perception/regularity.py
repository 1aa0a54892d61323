"""Regularity of object counts over normal images."""

from __future__ import annotations

from typing import Final

import numpy as np

_ROUNDING_VARIANCE: Final = 1.0 / 12.0


def count_regularity(counts: np.ndarray) -> float:
    """How much less counts vary than a Poisson process would, in nats per image.

    The variance of a Poisson distribution equals its mean. The entropy of a normal distribution grows with half the
    logarithm of its variance; rounding to whole numbers adds 1/12 to the variance (Sheppard).

    Args:
        counts: int, shape (M,), M >= 1: one count per image.

    Returns:
        About 0 for Poisson counts, above 0 for more regular counts, below 0 for counts that vary more.
    """
    return 0.5 * float(np.log((counts.mean() + _ROUNDING_VARIANCE) / (counts.var() + _ROUNDING_VARIANCE)))
