from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from uniad_ray.drift.statistics import along_directions, compare, population_stability_index


def test_index_of_two_values_is_the_sum_by_hand() -> None:
    before, now = np.array([0.0] * 30 + [1.0] * 10), np.array([0.0] * 10 + [1.0] * 10)
    shares = [(30.5 / 41, 10.5 / 21), (10.5 / 41, 10.5 / 21)]
    expected = sum((new - old) * math.log(new / old) for old, new in shares)
    assert population_stability_index(before, now) == pytest.approx(expected)
    assert population_stability_index(before, before) == 0


def test_index_of_quantiles_matches_a_plain_loop() -> None:
    generator = np.random.default_rng(0)
    before, now = generator.normal(size=200), generator.normal(0.5, 1, 100)
    edges = [-math.inf, *np.quantile(before, np.arange(1, 10) / 10), math.inf]
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        old = (sum(low < value <= high for value in before) + 0.5) / (200 + 5)
        new = (sum(low < value <= high for value in now) + 0.5) / (100 + 5)
        expected += (new - old) * math.log(new / old)
    assert population_stability_index(before, now) == pytest.approx(expected)


def test_constant_measure_that_moves_either_way_is_unstable() -> None:
    generator = np.random.default_rng(1)
    constant = np.full(40, 640.0)
    for other in (600 + generator.random(40), 700 + generator.random(40)):
        assert population_stability_index(constant, other) > 1
    mixed = np.concatenate([constant, 600 + generator.random(40)])
    assert population_stability_index(constant, mixed) > 0.25


def test_chance_index_is_exceeded_as_often_as_asked() -> None:
    generator = np.random.default_rng(2)
    found = [compare(generator.normal(size=100), generator.normal(size=60), probability=0.05) for _ in range(400)]
    share = np.mean([entry.psi > entry.chance_psi for entry in found])
    assert 0.01 < share < 0.09


def test_test_and_shift() -> None:
    difference = compare(np.arange(20.0), np.arange(20.0) + 100, probability=0.01)
    assert difference.ks == 1
    assert difference.p_value < 1e-10
    assert difference.shift == pytest.approx(100)
    with pytest.raises(ValueError, match="at least one value"):
        compare(np.array([]), np.array([1.0]), probability=0.1)


def test_directions_by_hand() -> None:
    """Two measures that are one, and a third that never varies: one direction, in deviations of the reference."""
    before = np.array([[0.0, 0.0, 5.0], [2.0, 20.0, 5.0], [4.0, 40.0, 5.0]])
    now = np.array([[6.0, 60.0, 5.0], [8.0, 80.0, 5.0]])
    ((old, new),) = along_directions(before, now, most=4)
    unit = np.std([0.0, 2.0, 4.0])
    assert old == pytest.approx((np.array([0.0, 2.0, 4.0]) - 2) / unit)
    assert new == pytest.approx((np.array([6.0, 8.0]) - 2) / unit)
    ((mirrored, moved),) = along_directions(-before, -now, most=4)
    assert moved == pytest.approx(new)
    assert mirrored == pytest.approx(old)


def test_reference_that_does_not_vary_has_a_finite_direction() -> None:
    before, now = np.zeros((5, 2)), np.arange(8.0).reshape(4, 2)
    ((old, new),) = along_directions(before, now, most=1)
    assert np.all(old == 0)
    assert np.all(np.isfinite(new))
    assert np.median(new) > 0
    assert along_directions(before, before, most=4) == []


def test_change_that_all_images_share_is_found_among_few_directions() -> None:
    generator = np.random.default_rng(2)
    before, now = generator.normal(size=(60, 30)), generator.normal(size=(40, 30)) + 1.0
    found = [compare(old, new, probability=0.001).p_value for old, new in along_directions(before, now, most=4)]
    assert len(found) == 4
    assert min(found) < 1e-6
