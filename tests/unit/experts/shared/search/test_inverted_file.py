from __future__ import annotations

import faiss
import numpy as np
import pytest

from uniad_ray.errors import BundleError
from uniad_ray.experts.shared.search.flat_search import Distance
from uniad_ray.experts.shared.search.inverted_file import Clusters, InvertedFile

LISTS = 12


def vectors(count: int, seed: int, distance: Distance = "l2") -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True) if distance == "cosine" else drawn


def closeness(queries: np.ndarray, rows: np.ndarray, distance: Distance) -> np.ndarray:
    """Cosine similarities or negative squared distances of all pairs, in double precision."""
    if distance == "cosine":
        return np.asarray(queries.astype(np.float64) @ rows.T.astype(np.float64))
    return -np.square(queries[:, None].astype(np.float64) - rows[None].astype(np.float64)).sum(axis=2)


def search_slowly(
    queries: np.ndarray, rows: np.ndarray, clusters: Clusters, distance: Distance, neighbours: int, probes: int
) -> np.ndarray:
    found = []
    for to_rows, to_centroids in zip(
        closeness(queries, rows, distance), closeness(queries, clusters.centroids, distance), strict=True
    ):
        searched = np.argsort(-to_centroids)[:probes]
        best = np.sort(to_rows[np.isin(clusters.lists, searched)])[::-1][:neighbours]
        found.append(np.pad(best, (0, neighbours - len(best)), constant_values=-np.inf))
    return np.array(found) if distance == "cosine" else -np.array(found)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_rows_are_in_the_list_of_the_nearest_centroid(distance: Distance) -> None:
    rows = vectors(300, 1, distance)

    clusters = Clusters.of(rows, distance, LISTS)

    assert clusters.centroids.shape == (LISTS, 6)
    assert clusters.lists.tolist() == closeness(rows, clusters.centroids, distance).argmax(axis=1).tolist()
    assert len(set(clusters.lists.tolist())) == LISTS


@pytest.mark.parametrize("distance", ["l2", "cosine"])
@pytest.mark.parametrize("neighbours", [1, 5])
@pytest.mark.parametrize("probes", [1, 3, LISTS, 99])
def test_only_the_nearest_lists_are_searched(distance: Distance, neighbours: int, probes: int) -> None:
    rows, queries = vectors(60, 1, distance), vectors(40, 2, distance)
    clusters = Clusters.of(rows, distance, LISTS)

    found = InvertedFile(rows, distance, clusters).search(queries, neighbours, probes)

    expected = search_slowly(queries, rows, clusters, distance, neighbours, probes)
    assert found.dtype == np.float32
    assert np.isinf(expected).any() == (neighbours == 5 and probes == 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_search_of_all_lists_is_exact(distance: Distance) -> None:
    rows, queries = vectors(200, 1, distance), vectors(40, 2, distance)

    found = InvertedFile(rows, distance, Clusters.of(rows, distance, LISTS)).search(queries, 3)

    expected = np.sort(closeness(queries, rows, distance), axis=1)[:, ::-1][:, :3]
    np.testing.assert_allclose(found, expected if distance == "cosine" else -expected, rtol=1e-5, atol=1e-6)


def test_given_lists_are_used_as_they_are() -> None:
    rows = np.array([[0.0], [1.0], [10.0]], dtype=np.float32)
    swapped = Clusters(np.array([[0.0], [10.0]], dtype=np.float32), np.array([1, 1, 0], dtype=np.int32))

    found = InvertedFile(rows, "l2", swapped).search(np.array([[0.0], [10.0]], dtype=np.float32), 2, 1)

    assert found.tolist() == [[100.0, np.inf], [81.0, 100.0]]


def test_no_queries_are_possible() -> None:
    rows = vectors(30, 1)

    assert InvertedFile(rows, "l2", Clusters.of(rows, "l2", 4)).search(rows[:0], 2, 1).shape == (0, 2)


def test_threads_have_no_effect() -> None:
    rows, queries = vectors(3000, 1), vectors(500, 2)
    threads = faiss.omp_get_max_threads()
    results = []
    for number in (1, 2, 3):
        faiss.omp_set_num_threads(number)
        clusters = Clusters.of(rows, "l2", 40)
        results.append((clusters.arrays(), InvertedFile(rows, "l2", clusters).search(queries, 2, 3)))
        assert faiss.omp_get_max_threads() == number
    faiss.omp_set_num_threads(threads)

    for arrays, found in results[1:]:
        assert np.array_equal(found, results[0][1])
        assert all(np.array_equal(array, results[0][0][name]) for name, array in arrays.items())


def test_memory_is_that_of_rows_numbers_and_centroids() -> None:
    rows = vectors(100, 1)

    assert InvertedFile(rows, "l2", Clusters.of(rows, "l2", 10)).memory_bytes == 100 * (6 * 4 + 8) + 10 * 6 * 4


@pytest.mark.parametrize("damage", ["no centroids", "no lists", "width", "rows", "range", "negative", "dtype"])
def test_unfit_clusters_are_refused(damage: str) -> None:
    rows = vectors(50, 1)
    arrays = dict(Clusters.of(rows, "l2", 5).arrays())
    restored = Clusters.from_arrays("memory", arrays, (50, 6))
    assert np.array_equal(restored.lists, arrays["lists"])
    assert np.array_equal(restored.centroids, arrays["centroids"])
    match damage:
        case "no centroids" | "no lists":
            del arrays[damage.removeprefix("no ")]
        case "width":
            arrays["centroids"] = arrays["centroids"][:, :5]
        case "rows":
            arrays["lists"] = arrays["lists"][:49]
        case "range":
            arrays["centroids"] = arrays["centroids"][:4]
        case "negative":
            arrays["lists"] = arrays["lists"] - 1
        case "dtype":
            arrays["lists"] = arrays["lists"].astype(np.int64)

    with pytest.raises(BundleError, match=r"memory: the bundle has no clusters.*fit the category again"):
        Clusters.from_arrays("memory", arrays, (50, 6))
