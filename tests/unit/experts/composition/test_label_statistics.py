from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.errors import BundleError
from uniad_ray.experts.composition.label_statistics import LabelStatistics

RED, BLUE = (255, 0, 0), (0, 0, 255)


def of(*columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of an image with four columns, red for 0 and blue for all others."""
    labels = np.tile(np.array(columns, dtype=np.uint8), (4, 1))
    return labels, np.where(labels[..., None] == 0, RED, BLUE).astype(np.uint8)


def test_occupancy_is_the_fraction_of_images() -> None:
    statistics = LabelStatistics(4)
    for columns in ((0, 0, 1, 1), (0, 1, 1, 1)):
        statistics.add(*of(*columns))

    np.testing.assert_array_equal(statistics.occupancy[:, 0], [[1.0, 0.5, 0.0, 0.0], [0.0, 0.5, 1.0, 1.0]])


def test_colours_are_means_over_the_pixels_of_a_label() -> None:
    statistics = LabelStatistics(4)
    statistics.add(*of(0, 0, 1, 1))

    np.testing.assert_array_equal(statistics.colours, [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def test_a_later_image_may_have_more_labels() -> None:
    statistics = LabelStatistics(4)
    for columns in ((0, 0, 0, 0), (0, 0, 0, 2)):
        statistics.add(*of(*columns))

    assert statistics.labels == 3
    np.testing.assert_array_equal(statistics.occupancy[2, 0], [0.0, 0.0, 0.0, 0.5])


def test_restored_statistics_are_the_same() -> None:
    statistics = LabelStatistics(4)
    statistics.add(*of(0, 1, 1, 2))

    restored = LabelStatistics.from_arrays(statistics.arrays(), 4)

    np.testing.assert_array_equal(restored.occupancy, statistics.occupancy)
    np.testing.assert_array_equal(restored.colours, statistics.colours)


def test_statistics_of_another_map_size_are_refused() -> None:
    statistics = LabelStatistics(4)
    statistics.add(*of(0, 1, 1, 2))

    with pytest.raises(BundleError, match="fit the category again"):
        LabelStatistics.from_arrays(statistics.arrays(), 8)
    with pytest.raises(BundleError, match="fit the category again"):
        LabelStatistics.from_arrays({}, 4)
