from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.perception.segmentation.clustering import choose_clusters, cluster_centres


def blobs(centres: np.ndarray, counts: list[int], spread: float = 0.05) -> np.ndarray:
    generator = np.random.default_rng(4)
    rows = np.repeat(centres, counts, axis=0) + generator.normal(scale=spread, size=(sum(counts), centres.shape[1]))
    return generator.permutation(rows).astype(np.float32)


CORNERS = np.array([[0.0, 0.0], [0.0, 5.0], [5.0, 0.0], [5.0, 5.0]])


def test_largest_cluster_comes_first() -> None:
    centres = cluster_centres(blobs(CORNERS, [50, 200, 100, 150]), 4, restarts=5, seed=0)

    assert centres.dtype == np.float32
    np.testing.assert_allclose(centres, CORNERS[[1, 3, 2, 0]], atol=0.05)


def test_centres_are_cluster_means() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)

    centres = cluster_centres(vectors, 5, restarts=3, seed=0)

    nearest = np.linalg.norm(vectors[:, None] - centres[None], axis=2).argmin(axis=1)
    means = [vectors[nearest == label].mean(axis=0) for label in range(5)]
    np.testing.assert_allclose(centres, means, atol=1e-3)


def test_more_restarts_never_fit_worse() -> None:
    vectors = np.random.default_rng(1).normal(size=(400, 6)).astype(np.float32)

    def inertia(restarts: int) -> float:
        centres = cluster_centres(vectors, 8, restarts=restarts, seed=0)
        return float(np.square(vectors[:, None] - centres[None]).sum(axis=2).min(axis=1).sum())

    assert inertia(10) < inertia(1)


def test_the_same_seed_gives_the_same_bits() -> None:
    vectors = np.random.default_rng(2).normal(size=(400, 6)).astype(np.float32)

    one, again = (cluster_centres(vectors, 6, restarts=4, seed=3) for _ in range(2))

    assert one.tobytes() == again.tobytes()


@pytest.mark.parametrize("true", [3, 4])
def test_selects_the_number_of_blobs(true: int) -> None:
    clusters, agreement = choose_clusters(blobs(CORNERS[:true], [120] * true), range(2, 9), restarts=5, seed=0)

    assert clusters == true
    assert set(agreement) == set(range(2, 9))
    assert agreement[true] == pytest.approx(1.0)


def test_falls_back_to_the_best_agreement() -> None:
    noise = np.random.default_rng(5).normal(size=(60, 12)).astype(np.float32)

    clusters, agreement = choose_clusters(noise, range(4, 8), restarts=2, seed=0)

    assert max(agreement.values()) < 0.9
    assert agreement[clusters] == max(agreement.values())
