from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.perception.regularity import count_regularity


def test_regularity_of_hand_computed_counts() -> None:
    assert count_regularity(np.ones(50, dtype=int)) == pytest.approx(0.5 * np.log(13))
    assert count_regularity(np.array([0, 1] * 25)) == pytest.approx(0.5 * np.log(7 / 4))
    assert count_regularity(np.zeros(50, dtype=int)) == 0.0
    assert count_regularity(np.array([0, 4] * 25)) < 0.0


def test_regularity_of_chance_is_about_zero() -> None:
    counts = np.random.default_rng(0).poisson(3.0, size=20_000)

    assert count_regularity(counts) == pytest.approx(0.0, abs=0.02)
