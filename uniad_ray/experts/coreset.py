"""Greedy k-center: the few vectors that leave none of the others far away (PatchCore, algorithm 1)."""

from __future__ import annotations

import numpy as np
import torch

_ROWS_AT_ONCE = 16_384


def gaussian_projection(vectors: np.ndarray, dimension: int, seed: int) -> np.ndarray:
    """Projects vectors to fewer dimensions, keeping distances about the same (Johnson-Lindenstrauss).

    Args:
        vectors: float32, shape (M, C).
        dimension: The number of dimensions kept; with `dimension >= C` the vectors come back as they are.
        seed: Seed of the projection.

    Returns:
        float32, shape (M, min(dimension, C)).
    """
    channels = vectors.shape[1]
    if dimension >= channels:
        return vectors
    matrix = np.random.default_rng(seed).standard_normal((channels, dimension)) / np.sqrt(dimension)
    projected = np.empty((len(vectors), dimension), dtype=np.float32)
    # Single precision would round differently with the number of BLAS threads, and so pick other vectors.
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        projected[rows] = vectors[rows].astype(np.float64) @ matrix
    return projected


def greedy_k_center(vectors: np.ndarray, size: int) -> np.ndarray:
    """Picks vectors one by one, always the one farthest (L2) from all picked so far; begins with the first.

    Args:
        vectors: float32, shape (M, C).
        size: How many to pick, 1..M.

    Returns:
        int64, shape (size,): the distinct rows picked, in the order of picking. The first k of them are the result for
        size k. Fewer than `size` come back where the rest of the vectors are copies of picked ones.
    """
    points = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
    # Centred, because |x|^2 + |c|^2 - 2 x.c loses its digits where all vectors share a long common part.
    points = points - points.mean(dim=0)
    norms = points.square().sum(dim=1)
    nearest = torch.full_like(norms, torch.inf)
    picked: list[int] = []
    latest = 0
    while len(picked) < size:
        picked.append(latest)
        distance = torch.addmv(norms, points, points[latest], alpha=-2.0).add_(norms[latest])
        torch.minimum(nearest, distance, out=nearest)
        nearest[latest] = -torch.inf
        latest = int(nearest.argmax())
        if nearest[latest] <= 0.0:
            break
    return np.asarray(picked, dtype=np.int64)
