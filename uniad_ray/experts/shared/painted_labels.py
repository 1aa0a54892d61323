"""Paints the evidence of each label on its region, or on its usual place where it is missing."""

from __future__ import annotations

import numpy as np


def paint_labels(labels: np.ndarray, areas: np.ndarray, strength: np.ndarray, occupancy: np.ndarray) -> np.ndarray:
    """The map of one image.

    Args:
        labels: The label of each pixel of the map: int, shape (h, w), values below K.
        areas: Area of each label in the image as a fraction, shape (K,).
        strength: Evidence of each label, >= 0, shape (K,).
        occupancy: How often normal images have each label at a pixel of the map: float32, shape (K, h, w), in 0..1.

    Returns:
        float32, shape (h, w): the evidence of the label there, or of a label that is usual there and has a smaller area
        than usual.
    """
    painted = strength[labels]
    usual = occupancy.mean(axis=(1, 2))
    for label in np.flatnonzero(areas < usual):
        missing = 1.0 - areas[label] / usual[label]
        place = occupancy[label] / occupancy[label].max()
        painted = np.maximum(painted, strength[label] * missing * place)
    return np.asarray(painted, dtype=np.float32)
