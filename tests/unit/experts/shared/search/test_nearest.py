from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniad_ray.errors import BundleError
from uniad_ray.experts.shared.search import nearest as nearest_module
from uniad_ray.experts.shared.search.flat_search import Distance
from uniad_ray.experts.shared.search.inverted_file import InvertedFile
from uniad_ray.experts.shared.search.nearest import FLAT, NearestNeighbours, VectorIndexConfig
from uniad_ray.perception.base import State

PQ = VectorIndexConfig(kind="pq")
IVF = VectorIndexConfig(kind="ivf", lists=40, probes=2)


def distances_slowly(queries: np.ndarray, bank: np.ndarray, distance: Distance, neighbours: int) -> np.ndarray:
    out = []
    for query in queries.astype(np.float64):
        if distance == "l2":
            all_distances = [np.linalg.norm(query - one) for one in bank]
        else:
            all_distances = [1 - query @ one / np.linalg.norm(query) / np.linalg.norm(one) for one in bank]
        out.append(np.mean(sorted(all_distances)[:neighbours]))
    return np.array(out)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 5000.0])
def test_equals_the_slow_reference(distance: Distance, neighbours: int, offset: float) -> None:
    generator = np.random.default_rng(0)
    bank = (generator.normal(size=(60, 32)) + offset).astype(np.float32)
    queries = (generator.normal(size=(40, 32)) + offset).astype(np.float32)

    found = NearestNeighbours(bank, distance, neighbours).distances(torch.from_numpy(queries))

    assert found.dtype == np.float32
    expected = distances_slowly(queries, bank.astype(np.float64), distance, neighbours)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_cosine_ignores_length_and_l2_does_not() -> None:
    bank = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    query = torch.tensor([[3.0, 0.0]])

    assert NearestNeighbours(bank, "cosine").distances(query)[0] == pytest.approx(0.0, abs=1e-6)
    assert NearestNeighbours(bank, "l2").distances(query)[0] == pytest.approx(2.0)


def test_neighbours_are_limited_to_the_bank() -> None:
    bank = np.array([[0.0], [2.0]], dtype=np.float32)

    assert NearestNeighbours(bank, "l2", neighbours=9).distances(torch.tensor([[0.0]]))[0] == pytest.approx(1.0)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_non_finite_query_gives_nan_alone(distance: Distance) -> None:
    bank = np.array([[1.0, 1.0], [2.0, 1.0]], dtype=np.float32)
    queries = torch.tensor([[1.0, 1.0], [float("nan"), 1.0], [float("inf"), 1.0]])

    found = NearestNeighbours(bank, distance).distances(queries)

    assert np.isnan(found).tolist() == [False, True, True]


def test_large_common_part_keeps_precision() -> None:
    # FAISS uses matrix products, which lose precision by cancellation, only in large searches.
    generator = np.random.default_rng(0)
    bank = (generator.normal(size=(2000, 152)) + 1000).astype(np.float32)
    queries = (generator.normal(size=(1024, 152)) + 1000).astype(np.float32)

    found = NearestNeighbours(bank, "l2").distances(torch.from_numpy(queries))

    expected = [np.linalg.norm(query.astype(np.float64) - bank, axis=1).min() for query in queries[:20]]
    np.testing.assert_allclose(found[:20], expected, rtol=1e-4)


def patches(count: int, seed: int) -> np.ndarray:
    """Vectors that vary in few directions, like patch features, in half precision."""
    directions = np.random.default_rng(7).normal(size=(16, 96))
    generator = np.random.default_rng(seed)
    noise = 0.5 * generator.normal(size=(count, 96))
    return np.asarray(generator.normal(size=(count, 16)) @ directions + noise, dtype=np.float16)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_product_codes_are_smaller_and_find_the_nearest(distance: Distance) -> None:
    bank, queries = patches(20_000, seed=1), patches(200, seed=2).astype(np.float32)

    flat, quantised = (NearestNeighbours(bank, distance, 1, index) for index in (FLAT, PQ))
    exact, found = (each.distances(torch.from_numpy(queries)) for each in (flat, quantised))

    assert 8 * quantised.index_bytes <= flat.index_bytes
    assert np.mean(found <= exact * (1 + 1e-4)) >= 0.95
    assert (found >= exact * (1 - 1e-4)).all()
    some = distances_slowly(queries[:10], bank.astype(np.float64), distance, 1)
    np.testing.assert_allclose(exact[:10], some, rtol=1e-4)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_re_ranked_distances_are_exact(distance: Distance) -> None:
    bank, queries = patches(400, seed=1), patches(30, seed=2).astype(np.float32)
    index = VectorIndexConfig(kind="pq", reranked=100)

    found = NearestNeighbours(bank, distance, 3, index).distances(torch.from_numpy(queries))

    expected = distances_slowly(queries, bank.astype(np.float64), distance, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_encoded_vectors_are_not_in_memory() -> None:
    held = {kind: NearestNeighbours(patches(100, 1), "l2", 1, VectorIndexConfig(kind=kind)) for kind in ("flat", "pq")}

    assert isinstance(held["pq"].arrays()["bank"], np.memmap)
    assert not isinstance(held["flat"].arrays()["bank"], np.memmap)
    assert held["flat"].index_bytes == 100 * 96 * 4


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_small_bank_is_searched_flat(distance: Distance) -> None:
    bank, queries = patches(64, seed=1), torch.from_numpy(patches(20, seed=2).astype(np.float32))

    small = NearestNeighbours(bank, distance, 2, PQ)

    assert set(small.arrays()) == {"bank"}
    assert np.array_equal(small.distances(queries), NearestNeighbours(bank, distance, 2).distances(queries))
    assert set(NearestNeighbours(bank, distance, 1, PQ).arrays()) == {"bank", "codebooks", "codes"}


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_re_ranking_is_cut_in_parts(distance: Distance, monkeypatch: pytest.MonkeyPatch) -> None:
    nearest = NearestNeighbours(patches(500, 1), distance, 2, PQ)
    queries = torch.from_numpy(patches(50, 2).astype(np.float32))
    whole = nearest.distances(queries)

    monkeypatch.setattr(nearest_module, "_VALUES_IN_CACHE", 7 * 64 * 96)

    np.testing.assert_allclose(nearest.distances(queries), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("index", [FLAT, PQ, IVF])
def test_restored_index_gives_the_same_distances(index: VectorIndexConfig) -> None:
    nearest = NearestNeighbours(patches(500, 1), "l2", 2, index)
    queries = torch.from_numpy(patches(50, 2).astype(np.float32))

    restored = NearestNeighbours.from_state("memory", State(nearest.arrays()), "l2", 2, index)

    assert np.array_equal(restored.distances(queries, 5), nearest.distances(queries, 5))
    assert set(restored.arrays()) == set(nearest.arrays())


def test_state_without_bank_or_codes_is_refused() -> None:
    for bank in ({}, {"bank": np.zeros((0, 4))}, {"bank": np.zeros(4)}):
        with pytest.raises(BundleError, match="memory: the bundle has no memory bank; fit"):
            NearestNeighbours.from_state("memory", State(bank), "l2")
    with pytest.raises(BundleError, match="memory: the bundle has no codebooks"):
        NearestNeighbours.from_state("memory", State({"bank": patches(500, 1)}), "l2", 1, PQ)
    with pytest.raises(BundleError, match="memory: the bundle has no clusters"):
        NearestNeighbours.from_state("memory", State({"bank": patches(500, 1)}), "l2", 1, IVF)


@pytest.mark.parametrize("index", [PQ, IVF])
def test_non_finite_query_of_an_index_gives_nan_alone(index: VectorIndexConfig) -> None:
    queries = torch.from_numpy(patches(4, 2).astype(np.float32))
    clean = NearestNeighbours(patches(500, 1), "l2", 1, index).distances(queries, 2)
    queries[1, 5], queries[2, 7] = float("nan"), float("inf")

    found = NearestNeighbours(patches(500, 1), "l2", 1, index).distances(queries, 2)

    assert np.isnan(found).tolist() == [False, True, True, False]
    assert np.array_equal(found[[0, 3]], clean[[0, 3]])


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_few_lists_miss_some_neighbours_but_the_highest_distances_are_exact(distance: Distance) -> None:
    bank, queries = patches(3000, seed=1), torch.from_numpy(patches(400, seed=2).astype(np.float32))
    exact = NearestNeighbours(bank, distance).distances(queries)
    inverted = NearestNeighbours(bank, distance, 1, IVF)

    rough, found = inverted.distances(queries), inverted.distances(queries, 20)

    assert (rough >= exact * (1 - 1e-4)).all()
    assert 0.5 < np.mean(rough <= exact * (1 + 1e-4)) < 1
    assert np.sort(rough)[-20:].mean() > 1.001 * np.sort(exact)[-20:].mean()
    np.testing.assert_allclose(np.sort(found)[-20:], np.sort(exact)[-20:], rtol=1e-4)
    changed = found != rough
    np.testing.assert_allclose(found[changed], exact[changed], rtol=1e-4)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_highest_distances_equal_slow_search(data: st.DataObject) -> None:
    """Whole numbers give ties, copies and zero distances; few vectors leave lists with too few neighbours."""
    draw = data.draw
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    distance: Distance = draw(st.sampled_from(["l2", "cosine"]))
    whole = draw(st.booleans())

    def vectors(count: int) -> np.ndarray:
        drawn = generator.integers(-2, 3, (count, 4)) if whole else generator.normal(size=(count, 4))
        drawn = drawn.astype(np.float32)
        drawn[~drawn.any(axis=1), 0] = 1.0
        return np.asarray(drawn, dtype=np.float32)

    bank, queries = vectors(draw(st.integers(1, 120))), vectors(draw(st.integers(1, 90)))
    neighbours = draw(st.integers(1, 6))
    index = VectorIndexConfig(kind="ivf", lists=draw(st.integers(1, 30)), probes=draw(st.integers(1, 4)))
    highest = draw(st.integers(0, 100))

    found = NearestNeighbours(bank, distance, neighbours, index).distances(torch.from_numpy(queries), highest)

    expected = distances_slowly(queries, bank.astype(np.float64), distance, neighbours)
    # Centring rounds copies of a vector apart.
    assert (found >= expected - 1e-5).all()
    assert np.isfinite(found).all()
    count = min(highest, len(queries))
    np.testing.assert_allclose(
        np.sort(found)[len(queries) - count :], np.sort(expected)[len(queries) - count :], rtol=1e-4, atol=1e-5
    )


def test_few_queries_are_compared_with_all_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = patches(3000, seed=1), torch.from_numpy(patches(1000, seed=2).astype(np.float32))
    inverted = NearestNeighbours(bank, "l2", 1, IVF)
    searched: dict[int | None, int] = {}
    search = InvertedFile.search

    def counted(self: InvertedFile, some: np.ndarray, neighbours: int, probes: int | None = None) -> np.ndarray:
        searched[probes] = searched.get(probes, 0) + len(some)
        return search(self, some, neighbours, probes)

    monkeypatch.setattr(InvertedFile, "search", counted)
    inverted.distances(queries, 10)

    assert searched[2] == 1000
    assert 10 <= searched[None] <= 200


def test_lists_with_too_few_neighbours_are_not_the_only_ones() -> None:
    bank = np.array([[0.0], [1.0], [50.0], [51.0]], dtype=np.float32)
    index = VectorIndexConfig(kind="ivf", lists=2, probes=1)

    found = NearestNeighbours(bank, "l2", 3, index).distances(torch.tensor([[0.0], [51.0]]))

    assert found == pytest.approx([17.0, 17.0], rel=1e-5)


def test_small_bank_has_no_clusters() -> None:
    queries = torch.from_numpy(patches(20, seed=2).astype(np.float32))

    small = NearestNeighbours(patches(40, 1), "l2", 2, IVF)

    assert set(small.arrays()) == {"bank"}
    assert np.array_equal(small.distances(queries, 3), NearestNeighbours(patches(40, 1), "l2", 2).distances(queries))
    assert set(NearestNeighbours(patches(41, 1), "l2", 2, IVF).arrays()) == {"bank", "centroids", "lists"}
