from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from uniad_ray.experts.composition.features import ABSENT, DEPTH_BOUNDS, DEPTHS, FEATURES, label_features


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


def slow_depths(labels: np.ndarray, label: int) -> list[float]:
    """Fraction of the image in each class of distance to the edge of a label, pixel by pixel."""
    height, width = labels.shape
    padded = np.pad(labels, 1, mode="edge")
    edges = [
        (row, column)
        for row in range(height)
        for column in range(width)
        if (padded[row + 1, [column, column + 2]] != labels[row, column]).any()
        or (padded[[row, row + 2], column + 1] != labels[row, column]).any()
    ]
    counts = [0] * (len(DEPTH_BOUNDS) + 1)
    for row, column in np.argwhere(labels == label):
        distance = 1.0 + min(math.hypot(row - there, column - across) for there, across in edges)
        counts[sum(distance > bound * max(height, width) for bound in DEPTH_BOUNDS)] += 1
    return [count / labels.size for count in counts]


def test_depths_equal_a_plain_reference() -> None:
    labels = np.zeros((30, 90), dtype=np.uint8)
    labels[4:26, 10:50] = 1
    labels[10:12, 60:80] = 2
    columns = [FEATURES.index(depth) for depth in DEPTHS]

    found = label_features(labels, 3)

    for label in range(3):
        assert np.square(found[label, columns]) == pytest.approx(slow_depths(labels, label))
        assert np.square(found[label, columns]).sum() == pytest.approx(found[label, 0])


@pytest.mark.parametrize("shape", [(3, 5), (90, 64), (200, 320), (7, 400)])
def test_depth_classes_equal_those_of_the_distance_transform(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(generator.standard_normal((4, *shape)), (0, 5, 5)).argmax(axis=0)
    labels = np.where(generator.random(shape) < 0.01, generator.integers(0, 4, shape), smooth).astype(np.uint8)
    padded = np.pad(labels, 1, mode="edge")
    others = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    is_edge = np.any([other != labels for other in others], axis=0)
    distance = 1.0 + ndimage.distance_transform_edt(~is_edge)
    classes = np.searchsorted(DEPTH_BOUNDS * max(shape), distance)
    for label, found in enumerate(label_features(labels, 4)):
        expected = np.sqrt(np.bincount(classes[labels == label], minlength=len(DEPTHS)) / labels.size)
        np.testing.assert_array_equal(found[-len(DEPTHS) :], expected)


def test_a_label_that_covers_the_image_has_no_edge() -> None:
    (only,) = label_features(np.zeros((40, 40), dtype=np.uint8), 1)

    assert only[[FEATURES.index(depth) for depth in DEPTHS]].tolist() == [0.0] * 5 + [1.0]


def test_touching_shapes_add_up() -> None:
    apart, touching = (np.zeros((100, 160), dtype=np.uint8) for _ in range(2))
    for labels, column in ((apart, 100), (touching, 60)):
        labels[20:60, 20:60] = 1
        labels[20:30, column : column + 40] = 1
    columns = [FEATURES.index(depth) for depth in DEPTHS]

    areas = [np.square(label_features(labels, 2)[1, columns]) for labels in (apart, touching)]

    assert np.abs(areas[0] - areas[1]).max() < 0.1 * areas[0].sum()
