from __future__ import annotations

import numpy as np
from sklearn.covariance import LedoitWolf

from uniad_ray.experts.shared.shrunk_precision import shrunk_precision


def test_constant_features_keep_precision_finite() -> None:
    rows = np.zeros((5, 3))
    rows[:, 0] = [2.0, -2.0, 1.0, -1.0, 0.0]

    precision = shrunk_precision(rows)

    assert np.linalg.eigvalsh(precision).max() <= 1.0 + 1e-12
    np.testing.assert_allclose(shrunk_precision(np.zeros((4, 3))), np.eye(3))


def test_one_row_has_the_scale_of_each_feature() -> None:
    np.testing.assert_allclose(shrunk_precision(np.array([[3.0, -1.0]])), np.eye(2))


def test_precision_inverts_the_shrunk_covariance() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3)) @ np.array([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 2.0]])

    np.testing.assert_allclose(shrunk_precision(rows) @ LedoitWolf().fit(rows).covariance_, np.eye(3), atol=1e-9)


def test_a_direction_without_variation_has_no_weight() -> None:
    first = np.array([1.0, 2.0, 3.0, 4.0]) * 1000.0
    rows = np.stack([first, -first], axis=1)

    precision = shrunk_precision(rows)

    assert np.isfinite(precision).all()
    assert np.array([1.0, 1.0]) @ precision @ np.array([1.0, 1.0]) < 1.0
