"""Greedy k-center: selects vectors so that all others are close to one of them (PatchCore, algorithm 1)."""

from __future__ import annotations

import numpy as np
import torch

_ROWS_AT_ONCE = 16_384


def gaussian_projection(vectors: np.ndarray, dimension: int, seed: int) -> np.ndarray:
    """Projects vectors to fewer dimensions, nearly preserving distances (Johnson-Lindenstrauss).

    Args:
        vectors: float32, shape (M, C).
        dimension: Number of dimensions to keep; with `dimension >= C` the vectors are returned unchanged.
        seed: Seed of the projection.

    Returns:
        float32, shape (M, min(dimension, C)).
    """
    channels = vectors.shape[1]
    if dimension >= channels:
        return vectors
    matrix = np.random.default_rng(seed).standard_normal((channels, dimension)) / np.sqrt(dimension)
    projected = np.empty((len(vectors), dimension), dtype=np.float32)
    # Single precision would round differently for each number of BLAS threads, and select other vectors.
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        projected[rows] = vectors[rows].astype(np.float64) @ matrix
    return projected


def greedy_k_center(vectors: np.ndarray, size: int) -> np.ndarray:
    """Selects vectors one by one, each the farthest (L2) from all selected so far; starts with the first.

    Args:
        vectors: float32, shape (M, C).
        size: Number of vectors to select, 1..M.

    Returns:
        int64, shape (size,): the distinct selected rows, in the order of selection. The first k of them are the result
        for size k. The result is shorter if all other vectors are copies of selected ones.
    """
    points = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
    # Centred, because |x|^2 + |c|^2 - 2 x.c loses precision if all vectors share a large common part.
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
