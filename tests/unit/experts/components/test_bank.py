from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniad_ray.errors import BundleError
from uniad_ray.experts.components.bank import ComponentBank

KEYS = [f"normal-{number:02d}" for number in range(12)]
ROWS = np.random.default_rng(0).normal(size=(12, 4)) * [1.0, 10.0, 0.1, 1.0] + [5.0, 0.0, 1.0, -3.0]


def test_plain_standardises_by_mean_and_deviation() -> None:
    bank = ComponentBank.fit(KEYS, ROWS)

    standardised = bank.standardised(ROWS)
    np.testing.assert_allclose(standardised.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(standardised.std(axis=0), 1.0)


def test_robust_ignores_an_unusual_normal_image() -> None:
    spoilt = ROWS.copy()
    spoilt[3] = 1e6

    plain, robust = (ComponentBank.fit(KEYS, spoilt, how) for how in ("plain", "robust"))

    assert (plain.scale > 1e5).all()
    np.testing.assert_allclose(robust.centre, np.median(spoilt, axis=0))
    np.testing.assert_allclose(robust.scale, 1.4826 * np.median(np.abs(spoilt - np.median(spoilt, axis=0)), axis=0))
    assert (robust.scale < 20.0).all()


@pytest.mark.parametrize("standardise", ["plain", "robust"])
def test_constant_feature_has_the_smallest_scale(standardise: Any) -> None:
    rows = ROWS.copy()
    rows[:, 2] = 4.0

    bank = ComponentBank.fit(KEYS, rows, standardise, np.array([1e-9, 1e-9, 0.25, 1e-9]))

    assert bank.scale[2] == 0.25
    assert bank.standardised(np.array([[5.0, 0.0, 3.0, 0.0]]))[0, 2] == -4.0


def test_neighbours_match_sorted_distances() -> None:
    bank = ComponentBank.fit(KEYS, ROWS)
    queries = np.random.default_rng(1).normal(size=(5, 4))

    distances, indices = bank.nearest(queries, 3)

    for query, found, rows in zip(queries, distances, indices, strict=True):
        slow = sorted((float(np.linalg.norm((query - row) / bank.scale)), at) for at, row in enumerate(ROWS))[:3]
        assert rows.tolist() == [at for _, at in slow]
        np.testing.assert_allclose(found, [distance for distance, _ in slow])


def test_neighbours_are_limited_to_the_bank() -> None:
    distances, indices = ComponentBank.fit(KEYS[:2], ROWS[:2]).nearest(ROWS[:1], 5)

    assert distances.shape == indices.shape == (1, 2)
    assert sorted(indices[0].tolist()) == [0, 1]


def test_ties_are_broken_by_row_key() -> None:
    bank = ComponentBank.fit(["c", "a", "b"], np.array([[1.0], [1.0], [1.0]]), smallest_scale=1.0)

    _, indices = bank.nearest(np.array([[0.0]]), 2)

    assert [bank.row_keys[index] for index in indices[0]] == ["a", "b"]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)))
def test_order_of_images_has_no_effect(order: list[int]) -> None:
    one = ComponentBank.fit(KEYS, ROWS)
    other = ComponentBank.fit([KEYS[index] for index in order], ROWS[order])

    assert other.row_keys == one.row_keys == tuple(KEYS)
    assert all(other.arrays()[name].tobytes() == array.tobytes() for name, array in one.arrays().items())


def test_restored_bank_is_bit_identical() -> None:
    bank = ComponentBank.fit(KEYS, ROWS)
    restored = ComponentBank.from_arrays(bank.row_keys, bank.arrays())
    query = np.random.default_rng(2).normal(size=(3, 4))

    assert len(restored) == 12
    assert restored.nearest(query, 4)[0].tobytes() == bank.nearest(query, 4)[0].tobytes()


def test_incomplete_bank_is_an_error() -> None:
    arrays = ComponentBank.fit(KEYS, ROWS).arrays()
    for keys, damaged in (
        (KEYS, {**arrays, "scale": arrays["scale"][:2]}),
        (KEYS, {name: array for name, array in arrays.items() if name != "centre"}),
        (KEYS[:5], arrays),
        ([], {**arrays, "features": arrays["features"][:0]}),
    ):
        with pytest.raises(BundleError, match="no bank of component features"):
            ComponentBank.from_arrays(keys, damaged)
