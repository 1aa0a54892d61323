"""The direction of a part in the image plane, as numbers that turn with it."""

from __future__ import annotations

from typing import Final

import numpy as np

SYMMETRIES: Final = (1, 2, 3, 4)
"""Numbers of turns within 360 degrees after which a moment is the same again."""


def directions(masks: np.ndarray) -> np.ndarray:
    """Normalised complex moments of masks (Flusser, 2000); they do not depend on place or size.

    With z the place of a pixel relative to the centre, the moment of symmetry k is the mean of z^k divided by that of
    |z|^k; for k = 1, whose mean is 0, it is the mean of z |z| divided by that of |z|^2. A turn by an angle multiplies
    it by exp(i k angle). The moments of a disc are 0: it has no direction.

    Args:
        masks: bool, shape (n, h, w), square pixels.

    Returns:
        float32, shape (n, 8), in -1..1: real and imaginary part of the moment of each of the `SYMMETRIES`.
    """
    found = np.zeros((len(masks), 2 * len(SYMMETRIES)), dtype=np.float32)
    for row, mask in enumerate(masks):
        down, across = np.nonzero(mask)
        places = (across - across.mean()) - 1j * (down - down.mean()) if len(down) else np.zeros(1, dtype=complex)
        lengths = np.abs(places)
        if lengths.max() == 0.0:
            continue
        for position, symmetry in enumerate(SYMMETRIES):
            power = max(symmetry, 2)
            turning = places * lengths if symmetry == 1 else places**symmetry
            moment = turning.mean() / (lengths**power).mean()
            found[row, 2 * position : 2 * position + 2] = moment.real, moment.imag
    return found
