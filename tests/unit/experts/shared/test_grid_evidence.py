from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from uniad_ray.experts.shared.anomaly_map import anomaly_maps
from uniad_ray.experts.shared.grid_evidence import GridEvidenceConfig, grid_evidence

GRIDS = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)


def test_maps_are_upsampled_and_smoothed() -> None:
    evidence = grid_evidence("patch", GRIDS, GridEvidenceConfig(map_size=16, smoothing=1.5))

    assert evidence.maps is not None
    assert np.array_equal(evidence.maps, anomaly_maps(GRIDS, 16, 1.5))


def test_score_is_maximum_of_map_or_grid() -> None:
    smoothed = grid_evidence("patch", GRIDS, GridEvidenceConfig(map_size=16))
    raw = grid_evidence("patch", GRIDS, GridEvidenceConfig(map_size=16, score_smoothed=False))

    assert smoothed.scores.tolist() == anomaly_maps(GRIDS, 16, 1.0).max(axis=(1, 2)).tolist()
    assert raw.scores.tolist() == GRIDS.max(axis=(1, 2)).tolist()
    assert raw.scores.dtype == np.float32


def test_top_mean_averages_the_highest_fraction() -> None:
    config = GridEvidenceConfig(score_smoothed=False, image_score="top_mean", top_fraction=0.1)

    scores = grid_evidence("patch", GRIDS, config).scores

    expected = [np.sort(grid, axis=None)[-6:].mean() for grid in GRIDS]  # 6 of 64 cells
    assert scores == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("image_score", ["max", "top_mean"])
def test_non_finite_cell_affects_only_its_image(bad: float, image_score: str) -> None:
    grids = GRIDS.copy()
    grids[1, 2, 3] = bad
    config = GridEvidenceConfig.model_validate({"image_score": image_score})

    scores = grid_evidence("patch", grids, config).scores

    assert np.isnan(scores).tolist() == [False, True, False]
    assert scores[[0, 2]].tolist() == grid_evidence("patch", GRIDS, config).scores[[0, 2]].tolist()


def test_reason_names_the_maximum_of_the_map() -> None:
    grid = np.zeros((1, 4, 4), dtype=np.float32)
    grid[0, 0, 3] = 1.0

    evidence = grid_evidence("structural_teacher", grid, GridEvidenceConfig(map_size=4, smoothing=0.0))

    assert evidence.reasons == [["structural teacher: strongest at row 0.12, column 0.88 of the image"]]


@pytest.mark.parametrize("options", [{"image_score": "mean"}, {"top_fraction": 0.0}, {"map_size": 0}, {"smooth": 1.0}])
def test_invalid_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GridEvidenceConfig.model_validate(options)
