"""Turns a grid of anomaly values per image into evidence: map, image score, and position of the maximum."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.shared.anomaly_map import anomaly_maps, peak_position


class GridEvidenceConfig(StrictModel):
    """Options of experts that score every cell of a grid.

    Attributes:
        image_score: `max` of the map, or `top_mean`, the mean of its highest fraction `top_fraction`.
        top_fraction: Fraction of the values in `top_mean`: pixels of the map, or cells of the grid.
        score_smoothed: Take the image score from the smoothed map; otherwise from the grid.
        map_size: Side of the evidence map.
        smoothing: Standard deviation of the map's Gaussian, map pixels; 0 disables smoothing.
    """

    image_score: Literal["max", "top_mean"] = "max"
    top_fraction: float = Field(default=0.01, gt=0.0, le=1.0)
    score_smoothed: bool = True
    map_size: int = Field(default=64, ge=1, le=2048)
    smoothing: float = Field(default=1.0, ge=0.0, le=100.0)


def grid_evidence(name: str, grids: np.ndarray, config: GridEvidenceConfig) -> Evidence:
    """Creates maps, image scores and reasons.

    Args:
        name: Name of the expert, for the reasons.
        grids: Anomaly value of each cell, float32, shape (N, h, w), higher is more anomalous.
        config: Smoothing of the map, and its reduction to one score.

    Returns:
        Evidence on the scale of the grids. An image with a non-finite cell has score NaN.
    """
    maps = anomaly_maps(grids, config.map_size, config.smoothing)
    scores = _image_scores(maps if config.score_smoothed else grids, config)
    finite = np.isfinite(grids).all(axis=(1, 2))
    return Evidence(
        scores=np.where(finite, scores, np.float32("nan")),
        maps=maps,
        reasons=[[_strongest_place(name, one)] for one in maps],
    )


def cells_in_score(cells: int, config: GridEvidenceConfig) -> int:
    """Number of the highest values among `cells` whose mean is the image score."""
    return max(1, round(config.top_fraction * cells)) if config.image_score == "top_mean" else 1


def _image_scores(grids: np.ndarray, config: GridEvidenceConfig) -> np.ndarray:
    flat = grids.reshape(len(grids), grids.shape[1] * grids.shape[2])
    count = cells_in_score(flat.shape[1], config)
    highest = np.partition(flat, flat.shape[1] - count, axis=1)[:, flat.shape[1] - count :]
    return np.asarray(np.sort(highest, axis=1).mean(axis=1, dtype=np.float32))


def _strongest_place(name: str, anomaly_map: np.ndarray) -> str:
    row, column = peak_position(anomaly_map)
    return f"{name.replace('_', ' ')}: strongest at row {row:.2f}, column {column:.2f} of the image"
