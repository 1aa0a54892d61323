"""Greedy k-center: selects vectors so that all others are close to one of them (PatchCore, algorithm 1)."""

from __future__ import annotations

import numpy as np

_ROWS_AT_ONCE = 16_384
_ROUNDING = 1e-4
_COMPARED = 512
_SELECTED_AT_ONCE = 64


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

    A selection can only bring vectors nearer. Several of the farthest can therefore be selected among themselves, as
    long as they stay farther than all others, before the distances of all vectors are updated at once.

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
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    picked = [0]
    fresh = [0]
    while fresh:
        _bring_nearer(nearest, points, squares, np.asarray(fresh))
        nearest[fresh] = -np.inf
        fresh = _farthest(nearest, points, min(size - len(picked), _SELECTED_AT_ONCE))
        picked += fresh
    return np.asarray(picked, dtype=np.int64)


def _bring_nearer(nearest: np.ndarray, points: np.ndarray, squares: np.ndarray, centres: np.ndarray) -> None:
    """Updates the squared distance of all points to their nearest centre with some more centres.

    BLAS rounds differently for each number of threads. It only finds the pairs whose distance matters.
    """
    for start in range(0, len(points), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        sums = squares[rows, None] + squares[centres]
        # Slightly too small, so that rounding never skips a pair.
        least = (1.0 - _ROUNDING) * sums - 2.0 * (points[rows] @ points[centres].T)
        row, column = np.nonzero(least < nearest[rows, None])
        distances = np.square(points[rows][row] - points[centres[column]]).sum(axis=1)
        np.minimum.at(nearest[rows], row, distances)


def _farthest(nearest: np.ndarray, points: np.ndarray, most: int) -> list[int]:
    """Selects up to `most` points, each the farthest from all centres and those before it; none if all are copies."""
    farthest = int(nearest.argmax())
    if most < 1 or nearest[farthest] <= 0.0:
        return []
    count = min(_COMPARED, len(nearest) - 1)
    order = np.argpartition(-nearest, count)
    others = nearest[order[count:]].max()
    candidates = np.union1d(order[:count], [farthest])
    distances = nearest[candidates].copy()
    found = [farthest]
    while True:
        distances = np.minimum(distances, np.square(points[candidates] - points[found[-1]]).sum(axis=1))
        best = int(distances.argmax())
        # With equal distances, one of the others may come first.
        if len(found) == most or distances[best] <= max(others, 0.0):
            return found
        found.append(int(candidates[best]))
