"""K-means on feature vectors, and selection of the number of clusters by stability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

_AGREES: Final = 0.9
_MOST_COMPARED: Final = 5000


def cluster_centres(vectors: np.ndarray, clusters: int, restarts: int, seed: int) -> np.ndarray:
    """Centres of the best of several k-means runs, the centre of the largest cluster first.

    Computed in double precision; rounding to single precision removes differences due to the number of threads.

    Args:
        vectors: float32, shape (M, C), with at least `clusters` distinct rows.
        clusters: The number of centres K.
        restarts: Number of k-means++ starts; the run with the lowest inertia is kept.
        seed: Seed of the starts.

    Returns:
        float32, shape (K, C).
    """
    found = KMeans(clusters, n_init=restarts, random_state=seed).fit(vectors.astype(np.float64))
    order = np.argsort(-np.bincount(found.labels_, minlength=clusters), kind="stable")
    return np.asarray(found.cluster_centers_[order], dtype=np.float32)


def choose_clusters(
    vectors: np.ndarray, candidates: Sequence[int], restarts: int, seed: int
) -> tuple[int, dict[int, float]]:
    """Selects the largest reproducible number of clusters.

    Areas and counts of components are comparable between images only if other images of the same kind would give the
    same components. The vectors are therefore split in two, each half is clustered, and both clusterings label all
    vectors. A number is accepted if the two labellings have an adjusted Rand index of at least 0.9. The largest
    accepted number wins; if none is accepted, the number with the best agreement wins.

    Args:
        vectors: float32, shape (M, C), in random order; only the first 5,000 are used. M is at least twice the largest
            candidate.
        candidates: Numbers of clusters to try, ascending.
        restarts: Number of starts of each k-means.
        seed: Seed of the starts.

    Returns:
        The selected number, and the agreement of every candidate, at most 1.
    """
    points = vectors[:_MOST_COMPARED].astype(np.float64)
    agreement = {}
    for clusters in candidates:
        halves = (
            KMeans(clusters, n_init=restarts, random_state=seed).fit(points[start::2]).predict(points)
            for start in (0, 1)
        )
        agreement[clusters] = float(adjusted_rand_score(*halves))
    accepted = [clusters for clusters in candidates if agreement[clusters] >= _AGREES]
    return (accepted[-1] if accepted else max(agreement, key=agreement.__getitem__)), agreement
