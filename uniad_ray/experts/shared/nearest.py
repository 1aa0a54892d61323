"""Nearest neighbours in a memory bank: by comparing all vectors, or on the CPU by product codes."""

from __future__ import annotations

from typing import Final, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError
from uniad_ray.experts.shared.flat_search import Distance, FlatSearch, flat_search
from uniad_ray.experts.shared.mapped_array import mapped_copy
from uniad_ray.experts.shared.product_codes import CENTROIDS, ProductCodes
from uniad_ray.perception.base import State

_CPU: Final = torch.device("cpu")
_VALUES_IN_CACHE: Final = 1 << 19


class VectorIndexConfig(StrictModel):
    """Search for the nearest vectors of a memory bank.

    Attributes:
        kind: `flat` keeps all vectors in memory and compares every query with each. `pq` keeps 4-bit product codes in
            memory (TMUAD, section V-C) and the vectors in a file in the temporary folder. The codes select a few
            candidates, and only these are read and compared exactly. On a GPU, both keep all vectors in its memory and
            compare with each: FAISS searches such codes on the CPU only.
        subvector: Number of channels per code of `pq`. With 2, the codes take a sixteenth of the memory of `flat`; with
            4, half of that, but the nearest vector is missed more often.
        reranked: Number of candidates of `pq` per query and averaged neighbour. A bank with at most this many vectors
            is searched as with `flat`.
    """

    kind: Literal["flat", "pq"] = "flat"
    subvector: int = Field(default=2, ge=1, le=64)
    reranked: int = Field(default=32, ge=CENTROIDS, le=1000)


FLAT: Final = VectorIndexConfig()


class NearestNeighbours:
    """The mean distance of each query to its k nearest vectors in a fixed bank.

    `l2` is the Euclidean distance; `cosine` is 1 - cosine similarity, in 0..2 (TMUAD, eq. 3). Distances are exact with
    both indexes, but `pq` may miss the nearest vector.
    """

    def __init__(
        self,
        bank: np.ndarray,
        distance: Distance,
        neighbours: int = 1,
        index: VectorIndexConfig = FLAT,
        codes: ProductCodes | None = None,
    ) -> None:
        """Indexes the bank.

        Args:
            bank: float32 or float16, shape (M, C), M >= 1; need not be normalised.
            distance: Distance to search by and to return.
            neighbours: Number of nearest vectors to average; at most M are used.
            index: Options of the search.
            codes: Codes of the bank, if known; otherwise they are learned if the index uses codes.
        """
        self._distance: Distance = distance
        self._neighbours = min(neighbours, len(bank))
        self._candidates = index.reranked * neighbours
        # Centred, because |q|^2 + |b|^2 - 2 q.b loses precision if all vectors share a large common part.
        self._centre = torch.from_numpy(bank.mean(axis=0, dtype=np.float64).astype(np.float32))
        self._searches: dict[torch.device, FlatSearch] = {}
        self._codes: ProductCodes | None = None
        if _has_codes(index, len(bank), neighbours):
            self._codes = codes or ProductCodes.of(self._prepare_rows(bank).numpy(), index.subvector)
            self._bank = mapped_copy(bank)
        else:
            self._bank = bank
            self._search_on(_CPU)

    @classmethod
    def from_state(
        cls, expert: str, state: State, distance: Distance, neighbours: int = 1, index: VectorIndexConfig = FLAT
    ) -> Self:
        """Restores the result of `arrays`. Nothing is learned again, so all machines search the same codes.

        Args:
            expert: Name of the expert, for messages.
            state: State of the expert, which includes these arrays.
            distance: As in the fit.
            neighbours: As in the fit.
            index: As in the fit.

        Raises:
            BundleError: The bank of shape (M, C) or its codes are missing.
        """
        bank = state.arrays.get("bank")
        if bank is None or bank.ndim != 2 or not bank.size:
            raise BundleError(f"{expert}: the bundle has no memory bank; fit the category again")
        codes = None
        if _has_codes(index, len(bank), neighbours):
            codes = ProductCodes.from_arrays(expert, state.arrays, bank.shape, index.subvector)
        return cls(bank, distance, neighbours, index, codes)

    def arrays(self) -> dict[str, np.ndarray]:
        """The bank as given to the constructor; with `pq` also its codebooks and codes."""
        return {"bank": self._bank} | (self._codes.arrays() if self._codes else {})

    @property
    def dimension(self) -> int:
        """Number of channels C of the bank."""
        return int(self._bank.shape[1])

    @property
    def index_bytes(self) -> int:
        """Memory in bytes that a CPU search reads: the vectors in single precision, or their codes."""
        return self._codes.memory_bytes if self._codes else 4 * self._bank.size

    def distances(self, queries: torch.Tensor) -> np.ndarray:
        """Distances of vectors to the bank.

        Args:
            queries: float32, shape (P, C), on any device.

        Returns:
            float32, shape (P,), >= 0; NaN for a query with non-finite values.
        """
        queries = self._prepare(queries)
        if queries.device.type == "cpu" and self._codes is not None:
            found = self._search_codes(queries, self._codes)
        else:
            found = self._search_on(queries.device)(queries, self._neighbours)
        if self._distance == "cosine":
            found = 1.0 - found
        found = np.maximum(found, 0.0, dtype=np.float32)
        if self._distance == "l2":
            found = np.sqrt(found)
        distances = found.mean(axis=1, dtype=np.float32)
        finite = torch.isfinite(queries).all(dim=1).cpu().numpy()
        return np.where(finite, distances, np.float32("nan"))

    def _prepare(self, vectors: torch.Tensor) -> torch.Tensor:
        if self._distance == "cosine":
            return F.normalize(vectors, dim=-1)
        return vectors - self._centre.to(vectors.device)

    def _prepare_rows(self, rows: np.ndarray) -> torch.Tensor:
        return self._prepare(torch.from_numpy(np.array(rows)).float())

    def _search_on(self, device: torch.device) -> FlatSearch:
        """The search of the whole bank on a device; created on first use."""
        if device not in self._searches:
            self._searches[device] = flat_search(self._prepare_rows(self._bank), self._distance, device)
        return self._searches[device]

    def _search_codes(self, queries: torch.Tensor, codes: ProductCodes) -> np.ndarray:
        """As `FlatSearch`, but only among the candidates that the codes select."""
        rows = codes.nearest(queries.numpy(), self._candidates)
        step = max(1, _VALUES_IN_CACHE // (self._candidates * self.dimension))
        found = []
        for start in range(0, len(queries), step):
            some = queries[start : start + step]
            vectors = self._prepare_rows(self._bank[rows[start : start + step]])
            if self._distance == "cosine":
                found.append(vectors.mul_(some[:, None]).sum(dim=2).topk(self._neighbours, dim=1).values)
            else:
                squared = vectors.sub_(some[:, None]).square_().sum(dim=2)
                found.append(squared.topk(self._neighbours, dim=1, largest=False).values)
        return torch.cat(found).numpy()


def _has_codes(index: VectorIndexConfig, vectors: int, neighbours: int) -> bool:
    """Whether a bank is searched by codes: this saves work only if there are fewer candidates than vectors."""
    return index.kind == "pq" and vectors > index.reranked * neighbours
