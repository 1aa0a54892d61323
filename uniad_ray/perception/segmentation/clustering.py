"""K-means on feature vectors, and how many clusters the vectors bear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

_AGREES: Final = 0.9
_MOST_COMPARED: Final = 5000


def cluster_centres(vectors: np.ndarray, clusters: int, restarts: int, seed: int) -> np.ndarray:
    """Centres of the best of several k-means clusterings, the one with the most vectors first.

    Computed in double precision, so that rounding to single takes away what the number of threads changes.

    Args:
        vectors: float32, shape (M, C), with at least `clusters` distinct rows.
        clusters: The number of centres K.
        restarts: How many k-means++ starts; the one with the lowest inertia is taken.
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
    """Chooses the largest number of clusters that the vectors reproduce.

    Areas and counts of components compare from image to image only if the components would come out the same from
    other images of the same kind. So the vectors are split in two, each half is clustered, and all vectors are labelled
    by both: the number is accepted if the two labellings agree, by the adjusted Rand index, to 0.9. Among the accepted
    ones the largest says the most; if none is accepted, the one that agrees best is taken.

    Args:
        vectors: float32, shape (M, C), in random order, of which the first 5,000 are used; M at least twice the largest
            candidate.
        candidates: The numbers to try, ascending.
        restarts: Starts of each k-means.
        seed: Seed of the starts.

    Returns:
        The number, and the agreement of every candidate, at most 1.
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
