from __future__ import annotations

import math

import numpy as np
import pytest

from uniad_ray.experts.composition.features import ABSENT, FEATURES, label_features


def slow(mask: np.ndarray) -> dict[str, float]:
    """Area and moments of the pixels of a mask, pixel by pixel."""
    height, width = mask.shape
    places = (np.argwhere(mask) + 0.5) / (height, width)
    covariance = np.cov(places.T, bias=True)
    return {
        "area": len(places) / mask.size,
        "row_spread": math.sqrt(covariance[0, 0]),
        "column_spread": math.sqrt(covariance[1, 1]),
        "tilt": 10.0 * covariance[0, 1],
    }


def test_amount_and_spread_equal_a_plain_reference() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (30, 50)).astype(np.uint8)
    labels[:10, :20] = 2

    found = label_features(labels, 3)

    for label in range(3):
        for name, value in slow(labels == label).items():
            assert found[label, FEATURES.index(name)] == pytest.approx(value), (label, name)


def test_regions_are_counted_and_the_largest_is_measured() -> None:
    labels = np.zeros((60, 80), dtype=np.uint8)
    labels[5:15, 5:15] = 1
    labels[30:50, 40:60] = 1

    _, one = label_features(labels, 2)

    assert one[FEATURES.index("regions")] == pytest.approx(math.log(3))
    assert one[FEATURES.index("largest")] == pytest.approx(math.log(400 / 4800))


def test_a_diagonal_is_tilted() -> None:
    labels = np.eye(40, dtype=np.uint8)

    assert label_features(labels, 2)[1, FEATURES.index("tilt")] == pytest.approx(10.0 / 12.0, rel=0.01)
    assert label_features(labels[::-1], 2)[1, FEATURES.index("tilt")] == pytest.approx(-10.0 / 12.0, rel=0.01)


def test_a_label_without_pixels_is_absent() -> None:
    np.testing.assert_array_equal(label_features(np.zeros((40, 40), dtype=np.uint8), 2)[1], ABSENT)
