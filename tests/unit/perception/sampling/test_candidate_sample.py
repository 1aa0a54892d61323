from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniad_ray.perception.sampling.candidate_sample import CandidateSample
from uniad_ray.perception.sampling.priorities import sampling_priorities


def image(key: str, patches: int = 300) -> torch.Tensor:
    generator = np.random.default_rng(int.from_bytes(key.encode(), "little"))
    return torch.from_numpy(generator.normal(size=(patches, 4)).astype(np.float32))


def bottom_slowly(keys: list[str], capacity: int, patches: int = 300) -> np.ndarray:
    """Reference: sorts all vectors of the stream by priority and keeps the first ones."""
    rows = [
        (int(priority), vector)
        for key in keys
        for priority, vector in zip(sampling_priorities(key, patches), image(key, patches).numpy(), strict=True)
    ]
    rows.sort(key=lambda row: row[0])
    return np.array([vector for _, vector in rows[:capacity]])


KEYS = [f"line-{number}" for number in range(60)]


def test_keeps_the_lowest_priorities() -> None:
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


def test_merged_samples_equal_the_whole_sample() -> None:
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


def test_sample_is_a_copy() -> None:
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
