from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.perception.spread import spread


def test_spread_is_the_rms_distance_to_the_mean() -> None:
    # Distances to the mean (3, 4): 5, 5 and 0.
    vectors = np.array([[0, 0], [6, 8], [3, 4]], dtype=np.float32)

    assert spread(vectors) == pytest.approx(np.sqrt(50 / 3))
    assert spread(vectors + 1000) == pytest.approx(np.sqrt(50 / 3))


def test_spread_is_never_zero() -> None:
    assert spread(np.ones((4, 3), dtype=np.float32)) == 1e-6
    assert spread(np.empty((0, 3), dtype=np.float32)) == 1.0
