"""How regular the number of something in normal images is."""

from __future__ import annotations

from typing import Final

import numpy as np

_ROUNDING_VARIANCE: Final = 1.0 / 12.0


def count_regularity(counts: np.ndarray) -> float:
    """How much less the counts of something vary than if it fell into the images by chance, in nats an image.

    By chance the variance of counts is their mean (Poisson). The entropy of a normal distribution grows with half the
    logarithm of its variance, to which rounding to whole numbers adds 1/12 (Sheppard).

    Args:
        counts: int, shape (M,), M >= 1: one count an image.

    Returns:
        About 0 for chance, below 0 for counts that vary more.
    """
    return 0.5 * float(np.log((counts.mean() + _ROUNDING_VARIANCE) / (counts.var() + _ROUNDING_VARIANCE)))
