"""Greedy k-center: selects vectors so that all others are close to one of them (PatchCore, algorithm 1)."""

from __future__ import annotations

import numpy as np

_ROWS_AT_ONCE = 16_384
_ROUNDING = 1e-4


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

    A vector can only be closer to a new centre than to its own if the two centres are less than twice its distance
    apart (triangle inequality), so most distances are never computed.

    Args:
        vectors: float32, shape (M, C).
        size: Number of vectors to select, 1..M.

    Returns:
        int64, shape (size,): the distinct selected rows, in the order of selection. The first k of them are the result
        for size k. The result is shorter if all other vectors are copies of selected ones.
    """
    # Centred, because |x|^2 + |c|^2 - 2 x.c loses precision if all vectors share a large common part.
    points = np.asarray(vectors - vectors.mean(axis=0), dtype=np.float32)
    squares = np.einsum("ij,ij->i", points, points)
    centres = np.empty((size, points.shape[1]), dtype=np.float32)
    centre_squares = np.empty(size, dtype=np.float32)
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    owner = np.zeros(len(points), dtype=np.int64)
    picked: list[int] = []
    latest = 0
    while len(picked) < size:
        centre = points[latest]
        count = len(picked)
        # Slightly too small, so that rounding never skips a vector.
        apart = (1.0 - _ROUNDING) * (centre_squares[:count] + squares[latest]) - 2.0 * (centres[:count] @ centre)
        rows = np.flatnonzero(apart[owner] < 4.0 * nearest) if count else np.arange(len(points))
        distances = np.square(points[rows] - centre).sum(axis=1)
        is_closer = distances < nearest[rows]
        nearest[rows[is_closer]] = distances[is_closer]
        owner[rows[is_closer]] = count
        centres[count], centre_squares[count] = centre, squares[latest]
        picked.append(latest)
        nearest[latest] = -np.inf
        latest = int(nearest.argmax())
        if nearest[latest] <= 0.0:
            break
    return np.asarray(picked, dtype=np.int64)
