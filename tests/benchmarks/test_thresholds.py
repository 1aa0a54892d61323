from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from support.scripts import load_script


def test_rules_are_compared_on_the_same_samples() -> None:
    script = load_script("benchmarks/thresholds.py")
    found = script.compare(20, 0.01, 3.5, (40,))
    rows = {(row["distribution"], row["rule"]): row for row in found["rows"]}
    assert len(rows) == 3 * len(script.DISTRIBUTIONS)
    for row in rows.values():
        assert 0 <= row["rate"] < 0.15
        assert 0 < row["low_recall"] <= 1
    assert rows["normal", "chosen"]["best_recall"] == pytest.approx(stats.norm.sf(stats.norm.isf(0.01) - 3.5), abs=0.01)
    (means,) = [row for row in found["means"] if row["rule"] == "chosen"]
    own = [row["rate"] for (_, rule), row in rows.items() if rule == "chosen"]
    assert means["rate"] == pytest.approx(np.mean(own))
    assert means["highest_rate"] == max(own)


def test_mixture_is_a_distribution() -> None:
    script = load_script("benchmarks/thresholds.py")
    mixture = script.Mixture(0.3, 3.0)
    drawn = mixture.rvs(50_000, np.random.default_rng(0))
    for value in (-1.0, 1.0, 3.0):
        assert (drawn > value).mean() == pytest.approx(mixture.sf(value), abs=0.01)
