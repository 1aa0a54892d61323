from __future__ import annotations

import numpy as np

from uniad_ray.experts.shared.painted_labels import paint_labels

OCCUPANCY = np.array([[[0.5, 1.0]], [[0.5, 0.0]]], dtype=np.float32)
"""Label 0 is always on the right and in half of the images on the left."""


def test_labels_are_painted_where_they_are() -> None:
    labels = np.array([[1, 0]])

    painted = paint_labels(labels, np.array([0.8, 0.5]), np.array([2.0, 3.0]), OCCUPANCY)

    np.testing.assert_array_equal(painted, [[3.0, 2.0]])


def test_a_missing_label_is_painted_on_its_usual_place() -> None:
    labels = np.array([[1, 1]])

    painted = paint_labels(labels, np.array([0.0, 1.0]), np.array([4.0, 0.0]), OCCUPANCY)

    np.testing.assert_array_equal(painted, [[2.0, 4.0]])


def test_half_of_the_usual_area_counts_half() -> None:
    labels = np.array([[0, 1]])

    painted = paint_labels(labels, np.array([0.375, 0.625]), np.array([4.0, 0.0]), OCCUPANCY)

    np.testing.assert_array_equal(painted, [[4.0, 2.0]])
