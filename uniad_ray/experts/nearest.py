"""Exact nearest neighbours of patch vectors: FAISS on the CPU, a plain matrix product on a CUDA device."""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

Distance = Literal["l2", "cosine"]


class NearestNeighbours:
    """The mean distance of each query to its k nearest vectors of a fixed bank.

    `l2` is the Euclidean distance; `cosine` is 1 - cosine similarity, in 0..2 (TMUAD, eq. 3).
    """

    def __init__(self, bank: np.ndarray, distance: Distance, neighbours: int = 1) -> None:
        """Indexes the bank.

        Args:
            bank: float32, shape (M, C), M >= 1; need not be normalised.
            distance: Which distance to search and report.
            neighbours: How many nearest vectors are averaged; at most M are used.
        """
        self._distance: Distance = distance
        self._neighbours = min(neighbours, len(bank))
        # Centred, because |q|^2 + |b|^2 - 2 q.b loses its digits where all vectors share a long common part.
        self._centre = torch.from_numpy(bank.mean(axis=0, dtype=np.float64).astype(np.float32))
        self._bank = self._prepare(torch.from_numpy(np.ascontiguousarray(bank, dtype=np.float32)))
        dimension = self._bank.shape[1]
        self._index = faiss.IndexFlatIP(dimension) if distance == "cosine" else faiss.IndexFlatL2(dimension)
        self._index.add(self._bank.numpy())
        self._on_device: dict[torch.device, torch.Tensor] = {}

    @property
    def dimension(self) -> int:
        """The number of channels C of the bank."""
        return int(self._bank.shape[1])

    def distances(self, queries: torch.Tensor) -> np.ndarray:
        """Distances of a set of vectors to the bank.

        Args:
            queries: float32, shape (P, C), on any device.

        Returns:
            float32, shape (P,), >= 0; NaN for a query that is not finite.
        """
        queries = self._prepare(queries)
        found = self._search_on_cpu(queries) if queries.device.type == "cpu" else self._search_on_device(queries)
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
            return F.normalize(vectors, dim=1)
        return vectors - self._centre.to(vectors.device)

    def _search_on_cpu(self, queries: torch.Tensor) -> np.ndarray:
        """Similarities (cosine) or squared distances (l2) of the k best, shape (P, k)."""
        best, _ = self._index.search(np.ascontiguousarray(queries.numpy()), self._neighbours)
        return np.asarray(best, dtype=np.float32)

    def _search_on_device(self, queries: torch.Tensor) -> np.ndarray:
        """The same as `_search_on_cpu`, on the device of the queries."""
        bank = self._on_device.setdefault(queries.device, self._bank.to(queries.device))
        products = queries @ bank.T
        if self._distance == "cosine":
            best = products.topk(self._neighbours, dim=1).values
        else:
            squared = queries.square().sum(dim=1, keepdim=True) + bank.square().sum(dim=1) - 2.0 * products
            best = squared.topk(self._neighbours, dim=1, largest=False).values
        return np.asarray(best.cpu().numpy(), dtype=np.float32)
