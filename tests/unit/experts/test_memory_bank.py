from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniad_ray.experts.memory_bank import CandidateSample, sampling_priorities, select_bank


def image(key: str, patches: int = 300) -> torch.Tensor:
    generator = np.random.default_rng(int.from_bytes(key.encode(), "little"))
    return torch.from_numpy(generator.normal(size=(patches, 4)).astype(np.float32))


def bottom_slowly(keys: list[str], capacity: int, patches: int = 300) -> np.ndarray:
    """Every vector of the stream sorted by its priority, and the first ones kept."""
    rows = [
        (int(priority), vector)
        for key in keys
        for priority, vector in zip(sampling_priorities(key, patches), image(key, patches).numpy(), strict=True)
    ]
    rows.sort(key=lambda row: row[0])
    return np.array([vector for _, vector in rows[:capacity]])


KEYS = [f"line-{number}" for number in range(60)]


def test_keeps_exactly_the_lowest_priorities_of_the_stream() -> None:
    sample = CandidateSample(500)
    for key in KEYS:
        sample.add(key, image(key))

    assert np.array_equal(sample.vectors(), bottom_slowly(KEYS, 500))


@settings(max_examples=20, deadline=None)
@given(st.permutations(KEYS[:30]), st.integers(1, 4000))
def test_order_does_not_matter(keys: list[str], capacity: int) -> None:
    forward, shuffled = CandidateSample(capacity), CandidateSample(capacity)
    for key in KEYS[:30]:
        forward.add(key, image(key))
    for key in keys:
        shuffled.add(key, image(key))

    assert forward.vectors().tobytes() == shuffled.vectors().tobytes()


def test_merged_samples_of_parts_equal_the_sample_of_the_whole() -> None:
    whole = CandidateSample(700)
    parts = [CandidateSample(700) for _ in range(3)]
    for number, key in enumerate(KEYS):
        whole.add(key, image(key))
        parts[number % 3].add(key, image(key))
    parts[2].merge(parts[0])
    parts[2].merge(parts[1])

    assert np.array_equal(parts[2].vectors(), whole.vectors())


def test_memory_stays_bounded() -> None:
    sample = CandidateSample(1000)
    for number in range(500):
        sample.add(f"x{number}", image(f"x{number}"))
        assert sum(len(one) for one in sample._vectors) <= 1000 + 4096

    assert len(sample.vectors()) == 1000


def test_what_is_kept_is_a_copy() -> None:
    sample, vectors = CandidateSample(500), image("a")
    sample.add("a", vectors)
    before = sample.vectors().copy()
    vectors.zero_()

    assert np.array_equal(sample.vectors(), before)


def test_an_empty_sample_is_empty() -> None:
    assert len(CandidateSample(5).vectors()) == 0


def test_sampling_is_even_over_images_and_places() -> None:
    priorities = np.stack([sampling_priorities(f"image {number}", 256) for number in range(400)])
    kept = priorities < np.quantile(priorities, 0.1)

    assert kept.sum(axis=1).std() == pytest.approx(np.sqrt(256 * 0.09), rel=0.15)
    assert kept.sum(axis=0).std() == pytest.approx(np.sqrt(400 * 0.09), rel=0.15)
    assert len(np.unique(priorities)) == priorities.size


def test_priorities_follow_from_key_and_seed_only() -> None:
    assert np.array_equal(sampling_priorities("a", 10), sampling_priorities("a", 20)[:10])
    assert not np.array_equal(sampling_priorities("a", 10), sampling_priorities("b", 10))
    assert not np.array_equal(sampling_priorities("a", 10), sampling_priorities("a", 10, seed=1))


def test_priorities_are_splitmix64_seeded_by_blake2b() -> None:
    mask = 2**64 - 1
    state = int.from_bytes(hashlib.blake2b(b"0:a", digest_size=8).digest(), "little")
    expected = []
    for index in range(1, 4):
        mixed = (state + index * 0x9E3779B97F4A7C15) & mask
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        expected.append(mixed ^ (mixed >> 31))

    assert sampling_priorities("a", 3).tolist() == expected


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


def test_spherical_kmeans_gives_unit_centres_and_spares_the_candidates(clusters: np.ndarray) -> None:
    before = clusters.copy()

    bank = select_bank(clusters, "kmeans", 10, spherical=True)

    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1.0, atol=1e-5)
    assert np.array_equal(clusters, before)


@pytest.mark.parametrize("selection", ["coreset", "kmeans"])
def test_few_candidates_are_all_kept(clusters: np.ndarray, selection: str) -> None:
    assert np.array_equal(select_bank(clusters[:5], selection, 5), clusters[:5])  # type: ignore[arg-type]


def test_all_ignores_the_size(clusters: np.ndarray) -> None:
    assert select_bank(clusters, "all", 10) is clusters
