"""Join the halves of two normal images along a path on which they agree: each half is right, perhaps not the pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import ndimage

from uniad_ray.scoring.fitting.synthetic.blending import grown
from uniad_ray.scoring.fitting.synthetic.parts import Parts

_OTHERS: Final = 6
_THROUGH_A_PART: Final = 80.0
"""Cost of a pixel of the path on a part, in grey levels of difference."""


def joined(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray | None:
    """One side is that of another image, of those that fit best; None without other images.

    The path from one edge to the opposite one crosses the middle half of the image, and takes the pixels of least
    difference, away from parts (dynamic programming, as in image quilting; Efros and Freeman, SIGGRAPH 2001).
    """
    best: tuple[float, np.ndarray] | None = None
    for position in rng.permutation(len(others))[:_OTHERS]:
        other = others[int(position)]
        is_other_first, across = (rng.random(2) < 0.5).tolist()
        first, second = (other, parts) if is_other_first else (parts, other)
        images = [one.image.astype(np.float32) for one in (first, second)]
        on_part = grown((first.owner >= 0) | (second.owner >= 0), parts.margin)
        if across:
            images, on_part = [image.transpose(1, 0, 2) for image in images], on_part.T
        cost = ndimage.uniform_filter(np.abs(images[0] - images[1]).mean(axis=2), 3) + _THROUGH_A_PART * on_part
        value, path = _cheapest_path(cost)
        if best is None or value < best[0]:
            is_first = np.arange(cost.shape[1]) < path[:, None]
            share = ndimage.gaussian_filter(is_first.astype(np.float32), 1.0)[..., None]
            found = np.rint(images[0] * share + images[1] * (1.0 - share)).astype(np.uint8)
            best = value, np.ascontiguousarray(found.transpose(1, 0, 2) if across else found)
    return None if best is None else best[1]


def _cheapest_path(cost: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cost, and column in each row, of the cheapest path from top to bottom through the middle half."""
    start, stop = cost.shape[1] // 4, max(cost.shape[1] * 3 // 4, cost.shape[1] // 4 + 1)
    total = cost[:, start:stop].astype(np.float64)
    moves = np.zeros(total.shape, dtype=np.int8)
    for row in range(1, len(total)):
        above = np.pad(total[row - 1], 1, constant_values=np.inf)
        three = np.stack([above[:-2], above[1:-1], above[2:]])
        moves[row] = three.argmin(axis=0) - 1
        total[row] += three.min(axis=0)
    path = np.empty(len(total), dtype=np.intp)
    path[-1] = total[-1].argmin()
    for row in range(len(total) - 1, 0, -1):
        path[row - 1] = path[row] + moves[row, path[row]]
    return float(total[-1].min()) / len(total), path + start
