from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.experts.shared.memory_bank import select_bank


@pytest.fixture(scope="module")
def clusters() -> np.ndarray:
    generator = np.random.default_rng(0)
    centres = generator.normal(scale=10.0, size=(6, 8))
    return (centres[generator.integers(6, size=900)] + generator.normal(scale=0.1, size=(900, 8))).astype(np.float32)


def test_coreset_keeps_candidates_and_reaches_every_cluster(clusters: np.ndarray) -> None:
    bank = select_bank(clusters, "coreset", 6, projection=4, seed=1)

    assert all((clusters == one).all(axis=1).any() for one in bank)
    farthest = np.linalg.norm(clusters[:, None] - bank[None], axis=2).min(axis=1).max()
    assert farthest < 2.0


def test_kmeans_finds_centres_near_the_candidates(clusters: np.ndarray) -> None:
    bank = select_bank(clusters, "kmeans", 30, seed=1)

    assert bank.shape == (30, 8)
    assert np.linalg.norm(clusters[:, None] - bank[None], axis=2).min(axis=1).mean() < 0.5
    assert np.array_equal(bank, select_bank(clusters, "kmeans", 30, seed=1))


def test_spherical_kmeans_gives_unit_centres(clusters: np.ndarray) -> None:
    before = clusters.copy()

    bank = select_bank(clusters, "kmeans", 10, spherical=True)

    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1.0, atol=1e-5)
    assert np.array_equal(clusters, before)


@pytest.mark.parametrize("selection", ["coreset", "kmeans"])
def test_few_candidates_are_all_kept(clusters: np.ndarray, selection: str) -> None:
    assert np.array_equal(select_bank(clusters[:5], selection, 5), clusters[:5])  # type: ignore[arg-type]


def test_all_ignores_the_size(clusters: np.ndarray) -> None:
    assert select_bank(clusters, "all", 10) is clusters
