"""Product quantisation: a bank of vectors as 4-bit codes, and search among them (FAISS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

import faiss
import numpy as np

from uniad_ray.errors import BundleError
from uniad_ray.experts.shared.search.mapped_array import mapped_copy
from uniad_ray.experts.shared.search.threads import one_thread

CENTROIDS: Final = 16
"""Number of centroids per sub-vector: four bits."""
_BITS: Final = 4
_ITERATIONS: Final = 10


class ProductCodes:
    """Vectors divided into sub-vectors, each stored as the index of its nearest centroid (Jegou et al., 2011).

    With four bits per sub-vector, the distances of a query to all centroids fit the registers of the processor (Andre
    et al., 2015; FAISS's fast scan). The codes select candidates; their exact distances need the vectors.
    """

    def __init__(self, dimension: int, codebooks: np.ndarray, codes: np.ndarray) -> None:
        """Makes encoded vectors searchable; use `of` to encode a bank, `from_arrays` to restore one.

        Args:
            dimension: Number of channels C.
            codebooks: Centroids of each of the S sub-vectors, float32, shape (S, 16, L) with S = ceil(C / L).
            codes: uint8, shape (M, ceil(S / 2)): two codes per byte, the first in the lower half.
        """
        subvectors, _, length = codebooks.shape
        self._dimension = dimension
        self._codebooks = codebooks
        self._codes = mapped_copy(codes)
        quantiser = faiss.IndexPQ(subvectors * length, subvectors, _BITS)
        faiss.copy_array_to_vector(codebooks.ravel(), quantiser.pq.centroids)
        faiss.copy_array_to_vector(codes.ravel(), quantiser.codes)
        quantiser.ntotal = len(codes)
        quantiser.is_trained = True
        # FAISS's type stubs lack this constructor and attribute.
        self._index = faiss.IndexPQFastScan(quantiser)  # type: ignore[arg-type]
        # It would point to the codes of the quantiser, which is freed here; a search does not need them.
        self._index.orig_codes = None  # type: ignore[attr-defined]

    @classmethod
    def of(cls, vectors: np.ndarray, length: int) -> Self:
        """Learns the centroids by k-means and encodes the vectors.

        The same vectors give the same codes, with any number of threads.

        Args:
            vectors: float32, shape (M, C), M >= 16.
            length: Channels per sub-vector; if they do not divide C, zeros are appended.
        """
        padded = _padded(vectors, length)
        quantiser = faiss.IndexPQ(padded.shape[1], padded.shape[1] // length, _BITS)
        quantiser.pq.cp.niter = _ITERATIONS
        quantiser.pq.cp.min_points_per_centroid = 1
        with one_thread():
            quantiser.train(padded)
        quantiser.add(padded)
        codebooks = faiss.vector_to_array(quantiser.pq.centroids).reshape(-1, CENTROIDS, length)
        codes = faiss.vector_to_array(quantiser.codes).reshape(len(vectors), quantiser.code_size)
        return cls(vectors.shape[1], codebooks, codes)

    @classmethod
    def from_arrays(cls, expert: str, arrays: Mapping[str, np.ndarray], shape: tuple[int, int], length: int) -> Self:
        """Restores the result of `arrays`.

        Args:
            expert: Name of the expert, for messages.
            arrays: Stored arrays by name.
            shape: Shape (M, C) of the encoded bank.
            length: Channels per sub-vector.

        Raises:
            BundleError: The codes are missing, or do not fit the bank.
        """
        vectors, dimension = shape
        subvectors = -(-dimension // length)
        expected = {
            "codebooks": ((subvectors, CENTROIDS, length), np.float32),
            "codes": ((vectors, -(-subvectors // 2)), np.uint8),
        }
        for name, (wanted, dtype) in expected.items():
            if name not in arrays or arrays[name].shape != wanted or arrays[name].dtype != dtype:
                raise BundleError(f"{expert}: the bundle has no {name} for its memory bank; fit the category again")
        return cls(dimension, arrays["codebooks"], arrays["codes"])

    @property
    def memory_bytes(self) -> int:
        """Memory of codes and centroids in bytes."""
        return int(self._index.codes.size()) + self._codebooks.nbytes

    def arrays(self) -> dict[str, np.ndarray]:
        """Codebooks and codes, for storage."""
        return {"codebooks": self._codebooks, "codes": self._codes}

    def nearest(self, queries: np.ndarray, count: int) -> np.ndarray:
        """The vectors with the nearest codes to each query.

        Args:
            queries: float32, shape (P, C).
            count: Number of vectors, at most M.

        Returns:
            int64, shape (P, count): row indices of the bank.
        """
        _, rows = self._index.search(_padded(queries, self._codebooks.shape[2]), count)
        return np.asarray(rows)


def _padded(vectors: np.ndarray, length: int) -> np.ndarray:
    return np.pad(np.ascontiguousarray(vectors, dtype=np.float32), ((0, 0), (0, -vectors.shape[1] % length)))
