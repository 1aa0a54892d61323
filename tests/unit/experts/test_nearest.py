from __future__ import annotations

import numpy as np
import pytest
import torch

from uniad_ray.experts.nearest import Distance, NearestNeighbours


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


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_device_search_agrees_with_faiss(distance: Distance, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    nearest = NearestNeighbours(generator.normal(size=(60, 5)).astype(np.float32), distance, 2)
    queries = torch.from_numpy(generator.normal(size=(40, 5)).astype(np.float32))

    by_faiss = nearest.distances(queries)
    monkeypatch.setattr(nearest, "_search_flat", nearest._search_on_device)
    by_torch = nearest.distances(queries)

    np.testing.assert_allclose(by_torch, by_faiss, atol=1e-5)


def test_cosine_ignores_length_and_l2_does_not() -> None:
    bank = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    query = torch.tensor([[3.0, 0.0]])

    assert NearestNeighbours(bank, "cosine").distances(query)[0] == pytest.approx(0.0, abs=1e-6)
    assert NearestNeighbours(bank, "l2").distances(query)[0] == pytest.approx(2.0)


def test_more_neighbours_than_vectors_takes_them_all() -> None:
    bank = np.array([[0.0], [2.0]], dtype=np.float32)

    assert NearestNeighbours(bank, "l2", neighbours=9).distances(torch.tensor([[0.0]]))[0] == pytest.approx(1.0)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_a_query_that_is_not_finite_gives_nan_and_spares_the_others(distance: Distance) -> None:
    bank = np.array([[1.0, 1.0], [2.0, 1.0]], dtype=np.float32)
    queries = torch.tensor([[1.0, 1.0], [float("nan"), 1.0], [float("inf"), 1.0]])

    found = NearestNeighbours(bank, distance).distances(queries)

    assert np.isnan(found).tolist() == [False, True, True]


def test_a_long_common_part_costs_no_digits_in_a_large_search() -> None:
    # FAISS turns to matrix products, which cancel, only where there is much to search.
    generator = np.random.default_rng(0)
    bank = (generator.normal(size=(2000, 152)) + 1000).astype(np.float32)
    queries = (generator.normal(size=(1024, 152)) + 1000).astype(np.float32)

    found = NearestNeighbours(bank, "l2").distances(torch.from_numpy(queries))

    expected = [np.linalg.norm(query.astype(np.float64) - bank, axis=1).min() for query in queries[:20]]
    np.testing.assert_allclose(found[:20], expected, rtol=1e-4)
