from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from uniad_ray.drift.statistics import compare, population_stability_index


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
