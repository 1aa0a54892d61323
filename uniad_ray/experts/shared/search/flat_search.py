"""Exhaustive search of a memory bank: FAISS on the CPU, FAISS on a GPU, or a matrix product in torch."""

from __future__ import annotations

import functools
import threading
from typing import Any, Final, Literal, Protocol

import faiss
import numpy as np
import torch

Distance = Literal["l2", "cosine"]
SearchWay = Literal["faiss_cpu", "faiss_gpu", "matrix_product"]

_PRODUCTS_AT_ONCE: Final = 1 << 26
_GPU_SCRATCH_BYTES: Final = 256 << 20
"""GPU memory for the intermediate results of a search; FAISS reserves 1.5 GiB by default."""


def faiss_metric(distance: Distance) -> int:
    """FAISS's number of a distance."""
    return int(faiss.METRIC_INNER_PRODUCT if distance == "cosine" else faiss.METRIC_L2)


def search_way(device: torch.device) -> SearchWay:
    """Chooses the search on a device: FAISS if the installed version supports the device, else torch."""
    if device.type == "cpu":
        return "faiss_cpu"
    has_gpus = device.type == "cuda" and hasattr(faiss, "StandardGpuResources")
    return "faiss_gpu" if has_gpus and faiss.get_num_gpus() > (device.index or 0) else "matrix_product"


class FlatSearch(Protocol):
    """Compares queries with every row of a bank."""

    def __call__(self, queries: torch.Tensor, neighbours: int) -> np.ndarray:
        """Finds the nearest rows of each query.

        Args:
            queries: float32, shape (P, C), on the device of the search; normalised for cosine.
            neighbours: Number of rows to find, at most the number of rows in the bank.

        Returns:
            float32, shape (P, neighbours): cosine similarities or squared l2 distances, nearest first.
        """
        ...


def flat_search(rows: torch.Tensor, distance: Distance, device: torch.device) -> FlatSearch:
    """Prepares the search of a bank for queries on a device.

    Args:
        rows: float32, shape (M, C), on the CPU; normalised for cosine.
        distance: Distance to search by.
        device: Device of the queries.
    """
    match search_way(device):
        case "faiss_cpu":
            return FaissSearch(rows, distance)
        case "faiss_gpu":
            return FaissGpuSearch(rows, distance, device)
        case "matrix_product":
            return MatrixProductSearch(rows, distance, device)


class FaissSearch:
    """A `FlatSearch` with FAISS on the CPU."""

    def __init__(self, rows: torch.Tensor, distance: Distance) -> None:
        """Indexes the rows; see `flat_search`."""
        self._index = faiss.IndexFlat(rows.shape[1], faiss_metric(distance))
        self._index.add(rows.numpy())

    def __call__(self, queries: torch.Tensor, neighbours: int) -> np.ndarray:
        """See `FlatSearch`."""
        best, _ = self._index.search(np.ascontiguousarray(queries.numpy()), neighbours)
        return np.asarray(best, dtype=np.float32)


class FaissGpuSearch:
    """A `FlatSearch` with FAISS on a GPU; only the nearest rows are copied back."""

    def __init__(self, rows: torch.Tensor, distance: Distance, device: torch.device) -> None:
        """Copies the rows to the GPU; see `flat_search`."""
        # With this import, FAISS reads torch's tensors on the GPU, in torch's stream.
        import faiss.contrib.torch_utils

        self._device = device
        self._gpu = _gpu()
        config = faiss.GpuIndexFlatConfig()
        config.device = device.index or 0
        with self._gpu.lock:
            self._index = faiss.GpuIndexFlat(self._gpu.resources, rows.shape[1], faiss_metric(distance), config)
            self._index.add(rows.numpy())

    def __call__(self, queries: torch.Tensor, neighbours: int) -> np.ndarray:
        """See `FlatSearch`."""
        with self._gpu.lock, torch.cuda.device(self._device):
            best, _ = self._index.search(queries.contiguous(), neighbours)
            return np.asarray(best.cpu().numpy(), dtype=np.float32)


class MatrixProductSearch:
    """A `FlatSearch` in torch, for devices that FAISS cannot use."""

    def __init__(self, rows: torch.Tensor, distance: Distance, device: torch.device) -> None:
        """Copies the rows to the device; see `flat_search`."""
        self._rows = rows.to(device)
        self._distance: Distance = distance

    def __call__(self, queries: torch.Tensor, neighbours: int) -> np.ndarray:
        """See `FlatSearch`."""
        found = []
        for some in torch.split(queries, max(1, _PRODUCTS_AT_ONCE // len(self._rows))):
            products = some @ self._rows.T
            if self._distance == "cosine":
                found.append(products.topk(neighbours, dim=1).values)
            else:
                squared = some.square().sum(dim=1, keepdim=True) + self._rows.square().sum(dim=1) - 2.0 * products
                found.append(squared.topk(neighbours, dim=1, largest=False).values)
        return np.asarray(torch.cat(found).cpu().numpy(), dtype=np.float32)


class _Gpu:
    """FAISS's GPU resources, shared by all banks of this process; used by one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.resources: Any = faiss.StandardGpuResources()
        self.resources.setTempMemory(_GPU_SCRATCH_BYTES)


@functools.cache
def _gpu() -> _Gpu:
    return _Gpu()
