from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from uniad_ray.scoring.tail import FEWEST_SCORES, Tail, fit_tail, most_above, rate_above


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.4])
def test_quantile_and_rate_match_the_distribution(shape: float) -> None:
    tail = Tail(start=2.0, share=0.25, shape=shape, scale=0.5)
    reference = stats.genpareto(shape, loc=2.0, scale=0.5)
    for rate in (0.1, 0.01, 0.001):
        value = tail.value_at(rate)
        assert value == pytest.approx(reference.isf(rate / 0.25))
        assert tail.rate_above(value) == pytest.approx(rate)


def test_nothing_is_above_the_end_of_a_short_tail() -> None:
    tail = Tail(start=0.0, share=0.25, shape=-0.5, scale=1.0)
    assert tail.rate_above(2.0) == 0.0
    assert tail.rate_above(3.0) == 0.0


def test_shape_follows_the_tail_of_many_scores() -> None:
    generator = np.random.default_rng(0)
    shapes = {}
    for shape in (-0.3, 0.0, 0.3):
        tail = fit_tail(stats.genpareto(shape).rvs(20_000, random_state=generator))
        assert tail is not None
        assert tail.share == 0.25
        shapes[shape] = tail.shape
    # The tail of a generalised Pareto distribution has the same shape.
    assert shapes == pytest.approx({shape: shape for shape in shapes}, abs=0.05)


def test_shape_of_few_scores_is_near_exponential() -> None:
    generator = np.random.default_rng(1)
    few = [fit_tail(generator.standard_t(2, size=30)) for _ in range(50)]
    many = [fit_tail(generator.standard_t(2, size=4000)) for _ in range(5)]
    assert np.mean([tail.shape for tail in few if tail]) < 0.5 * np.mean([tail.shape for tail in many if tail])


@pytest.mark.parametrize(
    "scores",
    [
        np.linspace(0, 1, FEWEST_SCORES - 1),
        np.zeros(50),
        # Two values only: no smooth tail describes them.
        np.repeat([0.0, 1.0], [60, 40]),
        np.repeat([0.0, 1.0, 9.0], [60, 20, 20]),
    ],
    ids=["few", "constant", "two values", "three values"],
)
def test_no_tail_without_a_trustworthy_fit(scores: np.ndarray) -> None:
    assert fit_tail(scores) is None


def test_order_and_scale_do_not_matter() -> None:
    scores = np.random.default_rng(2).gamma(3, size=80)
    tail = fit_tail(scores)
    moved = fit_tail(1000 + 10 * scores[::-1])
    assert tail is not None
    assert moved is not None
    assert moved.value_at(0.01) == pytest.approx(1000 + 10 * tail.value_at(0.01))


def test_frequent_scores_are_counted() -> None:
    found = rate_above(np.arange(100.0), 79.5)
    assert found.expected == 0.2
    exact = stats.binomtest(20, 100).proportion_ci(0.9, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_rare_scores_follow_the_tail() -> None:
    scores = np.random.default_rng(3).exponential(size=80)
    value = float(scores.max()) + 0.5
    found = rate_above(scores, value)
    assert 0.0 < found.expected < 1 / 80
    assert 0.0 <= found.low < found.expected < found.high < 0.08
    assert rate_above(scores, value + 1).expected < found.expected


def test_few_scores_are_counted() -> None:
    found = rate_above(np.array([0.0, 1.0, 2.0]), 5.0)
    assert (found.expected, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.05 ** (1 / 3))


def test_interval_covers_most_realised_rates() -> None:
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(100):
        scores = generator.normal(size=80)
        found = rate_above(scores, 2.3)
        covered += found.low <= stats.norm.sf(2.3) <= found.high
    assert covered >= 82


@pytest.mark.parametrize(("count", "rate"), [(80, 0.01), (20, 0.01), (500, 0.01), (60, 0.1), (5, 0.5)])
def test_plausible_count_is_the_binomial_quantile(count: int, rate: float) -> None:
    assert most_above(count, rate) == int(stats.binom.ppf(0.95, count, rate))
