"""A memory bank: a few vectors that represent many candidates."""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np

from uniad_ray.experts.shared.coreset import gaussian_projection, greedy_k_center

Selection = Literal["coreset", "kmeans", "all"]


def select_bank(
    candidates: np.ndarray,
    selection: Selection,
    size: int,
    *,
    projection: int = 64,
    spherical: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Selects the vectors of a memory bank.

    Args:
        candidates: float32, shape (M, C).
        selection: `coreset` selects by greedy k-center (PatchCore, algorithm 1), `kmeans` uses cluster centres
            (TMUAD, section IV-B), `all` keeps every candidate.
        size: Maximum number of vectors in the bank; with no more candidates than this, all are kept.
        projection: Number of dimensions of the random projection for the distances of `coreset`.
        spherical: Whether `kmeans` clusters by cosine on the unit sphere.
        seed: Seed of the projection and of k-means.

    Returns:
        float32, shape (at most `size`, C); with `all`, every candidate.
    """
    if selection == "all" or len(candidates) <= size:
        return candidates
    if selection == "coreset":
        return np.asarray(candidates[greedy_k_center(gaussian_projection(candidates, projection, seed), size)])
    points = np.ascontiguousarray(candidates)
    if spherical:
        points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.float32(1e-12))
    clustering = faiss.Kmeans(
        points.shape[1], size, niter=20, seed=seed, spherical=spherical, min_points_per_centroid=1
    )
    clustering.train(points)
    return np.asarray(clustering.centroids, dtype=np.float32)
