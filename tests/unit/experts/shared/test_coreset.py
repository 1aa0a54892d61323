from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniad_ray.experts.shared.coreset import gaussian_projection, greedy_k_center


def greedy_slowly(vectors: np.ndarray, size: int) -> list[int]:
    """Farthest point from the selected set; recomputes all distances each time."""
    picked = [0]
    while len(picked) < size:
        distances = [min(np.linalg.norm(one - vectors[other]) for other in picked) for one in vectors]
        picked.append(int(np.argmax(distances)))
    return picked


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_slow_reference(seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(loc=5000.0, size=(60, 7)).astype(np.float32)

    assert greedy_k_center(vectors, 20).tolist() == greedy_slowly(vectors.astype(np.float64), 20)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 3), st.integers(0, 2**16))
def test_each_is_the_farthest_among_copies_and_equal_distances(count: int, channels: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(0, 4, size=(count, channels)).astype(np.float32)

    picked = greedy_k_center(vectors, count)

    assert len(picked) == len(np.unique(vectors, axis=0)) == len(np.unique(vectors[picked], axis=0))
    distances = np.linalg.norm(vectors[:, None] - vectors[picked], axis=2)
    for number in range(1, len(picked)):
        nearest = distances[:, :number].min(axis=1)
        # Rounding decides between equal distances.
        assert nearest[picked[number]] == pytest.approx(nearest.max(), abs=1e-4)


@pytest.mark.parametrize("count", [513, 2000])
def test_more_vectors_than_are_compared_at_once(count: int) -> None:
    vectors = np.random.default_rng(count).normal(size=(count, 5)).astype(np.float32)

    picked = greedy_k_center(vectors, 150)

    distances = np.linalg.norm(vectors[:, None] - vectors[picked], axis=2)
    for number in range(1, 150):
        assert distances[:, :number].min(axis=1).argmax() == picked[number]


def test_a_hand_computed_case() -> None:
    line = np.array([[0.0], [1.0], [10.0], [6.0]], dtype=np.float32)

    assert greedy_k_center(line, 4).tolist() == [0, 2, 3, 1]


def test_copies_are_not_selected_twice() -> None:
    vectors = np.repeat(np.array([[0.0, 0.0], [4.0, 3.0], [8.0, 8.0]], dtype=np.float32), 5, axis=0)

    picked = greedy_k_center(vectors, 10)

    assert len(picked) == 3
    assert {tuple(row) for row in vectors[picked]} == {(0.0, 0.0), (4.0, 3.0), (8.0, 8.0)}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**16))
def test_smaller_coreset_is_a_prefix(count: int, size: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    size = min(size, count)

    picked = greedy_k_center(vectors, size)

    assert len(set(picked.tolist())) == len(picked) == size
    assert greedy_k_center(vectors, max(1, size // 2)).tolist() == picked[: max(1, size // 2)].tolist()


def test_covers_rare_regions() -> None:
    generator = np.random.default_rng(0)
    crowd = generator.normal(scale=0.1, size=(5000, 8))
    rare = generator.normal(scale=0.1, size=(5, 8)) + 5.0
    vectors = np.concatenate([crowd, rare]).astype(np.float32)

    assert (greedy_k_center(vectors, 20) >= 5000).any()
    assert not (generator.permutation(5005)[:20] >= 5000).any()


def test_projection_nearly_preserves_distances() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 1000)).astype(np.float32)

    projected = gaussian_projection(vectors, 400, seed=3)

    ratio = np.linalg.norm(projected[1:] - projected[0], axis=1) / np.linalg.norm(vectors[1:] - vectors[0], axis=1)
    assert projected.shape == (50, 400)
    assert ratio.mean() == pytest.approx(1.0, abs=0.05)
    assert np.array_equal(projected, gaussian_projection(vectors, 400, seed=3))
    assert not np.array_equal(projected, gaussian_projection(vectors, 400, seed=4))


def test_projection_to_more_dimensions_changes_nothing() -> None:
    vectors = np.ones((2, 3), dtype=np.float32)

    assert gaussian_projection(vectors, 3, seed=0) is vectors
