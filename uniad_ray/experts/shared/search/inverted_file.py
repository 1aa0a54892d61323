"""Inverted file: the rows of a bank in clusters, so that a query is compared with the nearest clusters only (FAISS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import faiss
import numpy as np

from uniad_ray.errors import BundleError
from uniad_ray.experts.shared.search.flat_search import Distance, faiss_metric
from uniad_ray.experts.shared.search.threads import one_thread

_ITERATIONS: Final = 10


@dataclass(frozen=True, slots=True)
class Clusters:
    """The rows of a bank in clusters.

    Attributes:
        centroids: Cluster centres, float32, shape (L, C).
        lists: Cluster of each row, int32, shape (M,), 0..L-1.
    """

    centroids: np.ndarray
    lists: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, distance: Distance, count: int) -> Self:
        """Clusters a bank by k-means; the same rows give the same clusters, with any number of threads.

        Args:
            rows: float32, shape (M, C), M >= count; normalised for cosine.
            distance: Distance to search by.
            count: Number of clusters L.
        """
        rows = np.ascontiguousarray(rows)
        spherical = distance == "cosine"
        clustering = faiss.Kmeans(
            rows.shape[1], count, niter=_ITERATIONS, seed=0, spherical=spherical, min_points_per_centroid=1
        )
        with one_thread():
            clustering.train(rows)
            _, lists = clustering.index.search(rows, 1)
        return cls(np.asarray(clustering.centroids, dtype=np.float32), lists[:, 0].astype(np.int32))

    @classmethod
    def from_arrays(cls, expert: str, arrays: Mapping[str, np.ndarray], shape: tuple[int, int]) -> Self:
        """Restores the result of `arrays`.

        Args:
            expert: Name of the expert, for messages.
            arrays: Stored arrays by name.
            shape: Shape (M, C) of the bank.

        Raises:
            BundleError: The clusters are missing, or do not fit the bank.
        """
        vectors, dimension = shape
        centroids, lists = arrays.get("centroids"), arrays.get("lists")
        if (
            centroids is None
            or lists is None
            or centroids.dtype != np.float32
            or lists.dtype != np.int32
            or (centroids.shape[1:], lists.shape) != ((dimension,), (vectors,))
            or not 0 <= lists.min() <= lists.max() < len(centroids)
        ):
            raise BundleError(f"{expert}: the bundle has no clusters for its memory bank; fit the category again")
        return cls(centroids, lists)

    def arrays(self) -> dict[str, np.ndarray]:
        """Centroids and the cluster of each row, for storage."""
        return {"centroids": self.centroids, "lists": self.lists}


class InvertedFile:
    """One list of rows per cluster, of which a query searches a few (Sivic and Zisserman, 2003; FAISS's IndexIVFFlat).

    FAISS compares rows one by one here, not by matrix products. A distance does not depend on the other queries.
    """

    def __init__(self, rows: np.ndarray, distance: Distance, clusters: Clusters) -> None:
        """Fills the lists.

        Args:
            rows: float32, shape (M, C); normalised for cosine.
            distance: Distance to search by.
            clusters: Clusters of these rows.
        """
        rows, lists = np.ascontiguousarray(rows), clusters.lists.astype(np.int64)
        self.clusters = clusters
        self._worst = np.float32(np.inf if distance == "l2" else -np.inf)
        metric = faiss_metric(distance)
        quantiser = faiss.IndexFlat(rows.shape[1], metric)
        quantiser.add(np.ascontiguousarray(clusters.centroids))
        self._index = faiss.IndexIVFFlat(quantiser, rows.shape[1], quantiser.ntotal, metric)
        self._index.is_trained = True
        # Unlike `add`, this does not search for the lists again: rounding could move a row on another machine.
        self._index.add_core(len(rows), faiss.swig_ptr(rows), None, faiss.swig_ptr(lists))

    @property
    def memory_bytes(self) -> int:
        """Memory of rows, their numbers and centroids in bytes."""
        rows, width = int(self._index.ntotal), int(self._index.d)
        return rows * (4 * width + 8) + self.clusters.centroids.nbytes

    def search(self, queries: np.ndarray, neighbours: int, probes: int | None = None) -> np.ndarray:
        """Finds the nearest rows of each query in the lists with the nearest centroids.

        Args:
            queries: float32, shape (P, C), finite; normalised for cosine.
            neighbours: Number of rows to find.
            probes: Number of lists to search; None searches all.

        Returns:
            float32, shape (P, neighbours): cosine similarities or squared l2 distances, nearest first; infinitely far
            if the lists have too few rows.
        """
        lists = int(self._index.nlist)
        options = faiss.SearchParametersIVF()
        options.nprobe = min(probes or lists, lists)
        found, rows = self._index.search(np.ascontiguousarray(queries), neighbours, params=options)
        return np.where(rows < 0, self._worst, found)
