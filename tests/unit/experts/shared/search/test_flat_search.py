"""The three flat searches, and which of them each device uses."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from uniad_ray.experts.shared.search import flat_search as module
from uniad_ray.experts.shared.search.flat_search import (
    Distance,
    FaissGpuSearch,
    FaissSearch,
    FlatSearch,
    MatrixProductSearch,
    flat_search,
    search_way,
)
from uniad_ray.experts.shared.search.nearest import NearestNeighbours, VectorIndexConfig

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
HAS_GPU = torch.cuda.is_available()
FAISS_HAS_GPU = HAS_GPU and search_way(GPU) == "faiss_gpu"
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="torch finds no GPU on this machine")
needs_faiss_gpu = pytest.mark.skipif(not FAISS_HAS_GPU, reason="FAISS finds no GPU on this machine")

WAYS = [
    pytest.param("faiss_cpu", CPU, id="faiss_cpu"),
    pytest.param("matrix_product", CPU, id="matrix_product_on_cpu"),
    pytest.param("matrix_product", GPU, id="matrix_product_on_gpu", marks=needs_gpu),
    pytest.param("faiss_gpu", GPU, id="faiss_gpu", marks=needs_faiss_gpu),
]


def vectors(count: int, seed: int, distance: Distance) -> torch.Tensor:
    drawn = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 24)).astype(np.float32))
    return torch.nn.functional.normalize(drawn, dim=1) if distance == "cosine" else drawn


def search(way: str, rows: torch.Tensor, distance: Distance, device: torch.device) -> FlatSearch:
    if way == "faiss_cpu":
        return FaissSearch(rows, distance)
    return {"faiss_gpu": FaissGpuSearch, "matrix_product": MatrixProductSearch}[way](rows, distance, device)


def search_slowly(queries: torch.Tensor, rows: torch.Tensor, distance: Distance, neighbours: int) -> np.ndarray:
    found = []
    for query in queries.numpy().astype(np.float64):
        if distance == "cosine":
            found.append(sorted((float(query @ row) for row in rows.numpy()), reverse=True)[:neighbours])
        else:
            found.append(sorted(float(((query - row) ** 2).sum()) for row in rows.numpy())[:neighbours])
    return np.array(found)


@pytest.mark.parametrize(("way", "device"), WAYS)
@pytest.mark.parametrize("distance", ["l2", "cosine"])
@pytest.mark.parametrize("neighbours", [1, 4])
def test_every_way_equals_slow_search(way: str, device: torch.device, distance: Distance, neighbours: int) -> None:
    rows, queries = vectors(300, 1, distance), vectors(50, 2, distance)

    found = search(way, rows, distance, device)(queries.to(device), neighbours)

    assert found.dtype == np.float32
    assert found.shape == (50, neighbours)
    np.testing.assert_allclose(found, search_slowly(queries, rows, distance, neighbours), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("way", "device"), WAYS)
def test_no_queries_and_all_rows_are_possible(way: str, device: torch.device) -> None:
    rows = vectors(3, 1, "l2")
    searched = search(way, rows, "l2", device)

    assert searched(rows[:0].to(device), 2).shape == (0, 2)
    assert searched(rows.to(device), 3).shape == (3, 3)


@pytest.mark.parametrize(("way", "device"), WAYS)
def test_non_finite_query_affects_only_itself(way: str, device: torch.device) -> None:
    rows, queries = vectors(300, 1, "l2"), vectors(5, 2, "l2")
    clean = search(way, rows, "l2", device)(queries.to(device), 1)
    queries[2, 3] = float("nan")

    found = search(way, rows, "l2", device)(queries.to(device), 1)

    np.testing.assert_allclose(found[[0, 1, 3, 4]], clean[[0, 1, 3, 4]], rtol=1e-6)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_large_matrix_products_are_cut_in_parts(distance: Distance, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = vectors(500, 1, distance), vectors(50, 2, distance)
    searched = MatrixProductSearch(rows, distance, CPU)
    whole = searched(queries, 2)
    sizes = []
    split = torch.split

    def recorded(tensor: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
        parts = split(tensor, size)
        sizes.extend(len(part) for part in parts)
        return parts

    monkeypatch.setattr(module, "_PRODUCTS_AT_ONCE", 7 * 500)
    monkeypatch.setattr(torch, "split", recorded)
    parts = searched(queries, 2)

    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)
    assert sizes == [7, 7, 7, 7, 7, 7, 7, 1]


class TestChoice:
    """Uses stubs of FAISS's GPU functions; no GPU is needed."""

    def stub_gpus(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: count, raising=False)
        monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)

    def test_cpu_uses_faiss_despite_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stub_gpus(monkeypatch, 4)
        assert search_way(CPU) == "faiss_cpu"

    @pytest.mark.parametrize(("gpus", "expected"), [(0, "matrix_product"), (1, "matrix_product"), (2, "faiss_gpu")])
    def test_gpu_uses_faiss_if_faiss_finds_it(self, monkeypatch: pytest.MonkeyPatch, gpus: int, expected: str) -> None:
        self.stub_gpus(monkeypatch, gpus)
        assert search_way(torch.device("cuda", 1)) == expected

    def test_gpu_without_faiss_support_uses_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stub_gpus(monkeypatch, 1)
        monkeypatch.delattr(faiss, "StandardGpuResources")
        assert search_way(GPU) == "matrix_product"

    def test_other_devices_use_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stub_gpus(monkeypatch, 1)
        assert search_way(torch.device("mps")) == "matrix_product"

    @pytest.mark.parametrize(("gpus", "expected"), [(1, "FaissGpuSearch"), (0, "MatrixProductSearch")])
    def test_bank_uses_the_chosen_search(self, monkeypatch: pytest.MonkeyPatch, gpus: int, expected: str) -> None:
        made = []

        def stub(name: str) -> type:
            class StubSearch:
                def __init__(self, rows: torch.Tensor, distance: Distance, device: torch.device) -> None:
                    made.append((name, tuple(rows.shape), distance, device))

            return StubSearch

        self.stub_gpus(monkeypatch, gpus)
        for name in ("FaissGpuSearch", "MatrixProductSearch"):
            monkeypatch.setattr(module, name, stub(name))
        flat_search(vectors(8, 1, "l2"), "l2", GPU)
        assert made == [(expected, (8, 24), "l2", GPU)]


@pytest.mark.skipif(not hasattr(faiss, "isGpuIndexImplemented"), reason="FAISS is built without GPU support")
def test_faiss_cannot_search_product_codes_on_a_gpu() -> None:
    """The reason why a bank with codes is searched flat on a GPU."""
    quantiser = faiss.IndexPQ(24, 12, 4)
    for codes in (quantiser, faiss.IndexPQFastScan(24, 12, 4)):
        assert not faiss.isGpuIndexImplemented(codes)
    assert faiss.isGpuIndexImplemented(faiss.IndexFlatL2(24))


@needs_gpu
@pytest.mark.parametrize("kind", ["flat", "pq", "ivf"])
@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_distances_on_gpu_equal_those_on_cpu(kind: str, distance: Distance) -> None:
    bank, queries = vectors(500, 1, "l2").numpy(), vectors(50, 2, "l2")
    nearest = NearestNeighbours(bank, distance, 2, VectorIndexConfig.model_validate({"kind": kind}))

    on_cpu = NearestNeighbours(bank, distance, 2).distances(queries)

    np.testing.assert_allclose(nearest.distances(queries.to(GPU)), on_cpu, rtol=1e-4, atol=1e-5)
