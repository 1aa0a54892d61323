"""Nearest neighbours in a memory bank: by comparing all vectors, or on the CPU by codes or by clusters."""

from __future__ import annotations

from typing import Final, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError
from uniad_ray.experts.shared.search.flat_search import Distance, FlatSearch, flat_search
from uniad_ray.experts.shared.search.inverted_file import Clusters, InvertedFile
from uniad_ray.experts.shared.search.mapped_array import mapped_copy
from uniad_ray.experts.shared.search.product_codes import CENTROIDS, ProductCodes
from uniad_ray.perception.base import State

_CPU: Final = torch.device("cpu")
_VALUES_IN_CACHE: Final = 1 << 19
_EXACT_AT_ONCE: Final = 32


class VectorIndexConfig(StrictModel):
    """Search for the nearest vectors of a memory bank.

    Attributes:
        kind: `flat` keeps all vectors in memory and compares every query with each. `pq` saves memory: it keeps 4-bit
            product codes in memory (TMUAD, section V-C) and the vectors in a file in the temporary folder. The codes
            select a few candidates, and only these are read and compared exactly. `ivf` saves time: an inverted file
            holds the vectors in clusters, and a query is compared with the nearest clusters only. The patch memory
            then computes the highest distances, which make up the image score, exactly. On a GPU, every kind keeps all
            vectors in its memory and compares with each.
        subvector: Number of channels per code of `pq`. With 2, the codes take a sixteenth of the memory of `flat`; with
            4, half of that, but the nearest vector is missed more often.
        reranked: Number of candidates of `pq` per query and averaged neighbour. A bank with at most this many vectors
            is searched as with `flat`.
        lists: Number of clusters of `ivf`; about the square root of the number of vectors is fastest. A bank with at
            most this many vectors is searched as with `flat`.
        probes: Number of clusters of `ivf` that a query is compared with. With more, the nearest vector is missed less
            often, and the search takes longer.
    """

    kind: Literal["flat", "pq", "ivf"] = "flat"
    subvector: int = Field(default=2, ge=1, le=64)
    reranked: int = Field(default=32, ge=CENTROIDS, le=1000)
    lists: int = Field(default=256, ge=1, le=65_536)
    probes: int = Field(default=4, ge=1, le=65_536)


FLAT: Final = VectorIndexConfig()


class NearestNeighbours:
    """The mean distance of each query to its k nearest vectors in a fixed bank.

    `l2` is the Euclidean distance; `cosine` is 1 - cosine similarity, in 0..2 (TMUAD, eq. 3). Every index returns true
    distances to vectors of the bank, but `pq` and `ivf` may miss the nearest ones; such a distance is too large.
    """

    def __init__(
        self,
        bank: np.ndarray,
        distance: Distance,
        neighbours: int = 1,
        index: VectorIndexConfig = FLAT,
        learned: ProductCodes | Clusters | None = None,
    ) -> None:
        """Indexes the bank.

        Args:
            bank: float32 or float16, shape (M, C), M >= 1; need not be normalised.
            distance: Distance to search by and to return.
            neighbours: Number of nearest vectors to average; at most M are used.
            index: Options of the search.
            learned: Codes or clusters of the bank, if known; otherwise they are learned if the index uses any.
        """
        self._distance: Distance = distance
        self._neighbours = min(neighbours, len(bank))
        self._candidates = index.reranked * neighbours
        self._probes = index.probes
        # Centred, because |q|^2 + |b|^2 - 2 q.b loses precision if all vectors share a large common part.
        self._centre = torch.from_numpy(bank.mean(axis=0, dtype=np.float64).astype(np.float32))
        self._searches: dict[torch.device, FlatSearch] = {}
        self._codes: ProductCodes | None = None
        self._inverted: InvertedFile | None = None
        self._bank = bank
        match _kind(index, len(bank), neighbours):
            case "flat":
                self._search_on(_CPU)
            case "pq":
                codes = learned or ProductCodes.of(self._prepare_rows(bank).numpy(), index.subvector)
                assert isinstance(codes, ProductCodes)  # noqa: S101
                self._codes = codes
                self._bank = mapped_copy(bank)
            case "ivf":
                rows = self._prepare_rows(bank).numpy()
                clusters = learned or Clusters.of(rows, distance, index.lists)
                assert isinstance(clusters, Clusters)  # noqa: S101
                self._inverted = InvertedFile(rows, distance, clusters)

    @classmethod
    def from_state(
        cls, expert: str, state: State, distance: Distance, neighbours: int = 1, index: VectorIndexConfig = FLAT
    ) -> Self:
        """Restores the result of `arrays`; nothing is learned again, so all machines search the same codes or lists.

        Args:
            expert: Name of the expert, for messages.
            state: State of the expert, which includes these arrays.
            distance: As in the fit.
            neighbours: As in the fit.
            index: As in the fit.

        Raises:
            BundleError: The bank of shape (M, C), its codes or its clusters are missing.
        """
        bank = state.arrays.get("bank")
        if bank is None or bank.ndim != 2 or not bank.size:
            raise BundleError(f"{expert}: the bundle has no memory bank; fit the category again")
        match _kind(index, len(bank), neighbours):
            case "flat":
                return cls(bank, distance, neighbours, index)
            case "pq":
                codes = ProductCodes.from_arrays(expert, state.arrays, bank.shape, index.subvector)
                return cls(bank, distance, neighbours, index, codes)
            case "ivf":
                clusters = Clusters.from_arrays(expert, state.arrays, bank.shape)
                return cls(bank, distance, neighbours, index, clusters)

    def arrays(self) -> dict[str, np.ndarray]:
        """The bank as given to the constructor; also the codebooks and codes of `pq`, or the clusters of `ivf`."""
        if self._inverted is not None:
            return {"bank": self._bank} | self._inverted.clusters.arrays()
        return {"bank": self._bank} | (self._codes.arrays() if self._codes else {})

    @property
    def dimension(self) -> int:
        """Number of channels C of the bank."""
        return int(self._bank.shape[1])

    @property
    def index_bytes(self) -> int:
        """Memory in bytes of a CPU search: the vectors in single precision, with their clusters, or their codes."""
        if self._inverted is not None:
            return self._inverted.memory_bytes
        return self._codes.memory_bytes if self._codes else 4 * self._bank.size

    def distances(self, queries: torch.Tensor, exact_highest: int = 0) -> np.ndarray:
        """Distances of vectors to the bank.

        Args:
            queries: float32, shape (P, C), on any device.
            exact_highest: Number of highest distances that `ivf` makes exact, at most P; `flat` makes all exact, `pq`
                none.

        Returns:
            float32, shape (P,), >= 0; NaN for a query with non-finite values.
        """
        queries = self._prepare(queries)
        finite = torch.isfinite(queries).all(dim=1)
        if queries.device.type == "cpu" and self._inverted is not None:
            distances = np.zeros(len(queries), dtype=np.float32)
            distances[finite.numpy()] = self._search_lists(queries[finite].numpy(), self._inverted, exact_highest)
        elif queries.device.type == "cpu" and self._codes is not None:
            distances = self._mean_distances(self._search_codes(queries, self._codes))
        else:
            distances = self._mean_distances(self._search_on(queries.device)(queries, self._neighbours))
        return np.where(finite.cpu().numpy(), distances, np.float32("nan"))

    def _mean_distances(self, found: np.ndarray) -> np.ndarray:
        """Mean distance to the found vectors, given cosine similarities or squared l2 distances of shape (P, k)."""
        if self._distance == "cosine":
            found = 1.0 - found
        found = np.maximum(found, 0.0, dtype=np.float32)
        if self._distance == "l2":
            found = np.sqrt(found)
        return np.asarray(found.mean(axis=1, dtype=np.float32))

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

    def _search_lists(self, queries: np.ndarray, inverted: InvertedFile, exact_highest: int) -> np.ndarray:
        """Distances to the vectors of a few lists; exact for the highest, so that their mean is that of a flat search.

        The nearest vectors of a few lists are at least as far as those of all, so the first distances are upper bounds.
        Exact ones are computed in descending order of the bounds, until the required number of them is at least as
        large as the next bound. No other distance can then be higher.
        """
        distances = self._mean_distances(inverted.search(queries, self._neighbours, self._probes))
        order = np.argsort(-distances, kind="stable")
        wanted, done = min(exact_highest, len(order)), 0
        # Infinite where the searched lists have fewer vectors than neighbours.
        missing = int(np.isinf(distances).sum())
        while done < len(order):
            exact = distances[order[:done]]
            if done >= max(wanted, missing):
                lowest = np.partition(exact, done - wanted)[done - wanted] if wanted else np.inf
                if lowest >= distances[order[done]]:
                    break
            some = order[done : done + max(wanted, _EXACT_AT_ONCE)]
            distances[some] = self._mean_distances(inverted.search(queries[some], self._neighbours))
            done += len(some)
        return distances


def _kind(index: VectorIndexConfig, vectors: int, neighbours: int) -> Literal["flat", "pq", "ivf"]:
    """The search of a bank: codes or clusters save work only if they leave out vectors."""
    smallest = {"flat": 0, "pq": index.reranked * neighbours, "ivf": index.lists}[index.kind]
    return index.kind if vectors > smallest else "flat"
