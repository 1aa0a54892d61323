from __future__ import annotations

import numpy as np

from uniad_ray.experts.base import Evidence
from uniad_ray.scoring.calibration import ExpertCalibration
from uniad_ray.scoring.fusion import fuse, merge_reasons

CALIBRATIONS = {"a": ExpertCalibration(mean=1.0, deviation=2.0), "b": ExpertCalibration(mean=0.0, deviation=0.5)}


def test_scores_and_maps_are_calibrated_weighted_and_added() -> None:
    maps = np.array([[[1.0, 3.0]], [[5.0, 1.0]]], dtype=np.float32)
    evidence = {
        "a": Evidence(np.array([3.0, 5.0]), maps, [["a0"], []]),
        "b": Evidence(np.array([1.0, -1.0]), None, [["b0"], ["b1"]]),
    }
    fused = fuse(evidence, CALIBRATIONS, {"b": 0.25})
    assert fused.calibrated["a"].tolist() == [1.0, 2.0]
    assert fused.calibrated["b"].tolist() == [2.0, -2.0]
    assert fused.scores.tolist() == [1.0 + 0.25 * 2.0, 2.0 - 0.25 * 2.0]
    assert fused.maps is not None
    np.testing.assert_allclose(fused.maps, (maps - 1.0) / 2.0)
    assert merge_reasons(evidence, 0) == ["a0", "b0"]
    assert merge_reasons(evidence, 1) == ["b1"]


def test_experts_without_maps_give_no_map() -> None:
    fused = fuse({"b": Evidence(np.array([1.0]), None, [[]])}, CALIBRATIONS, {})
    assert fused.maps is None
    assert fused.scores.tolist() == [2.0]


def test_maps_of_several_experts_add_up() -> None:
    maps = np.ones((1, 2, 2), dtype=np.float32)
    evidence = {name: Evidence(np.array([1.0]), maps, [[]]) for name in ("a", "b")}
    fused = fuse(evidence, CALIBRATIONS, {})
    assert fused.maps is not None
    np.testing.assert_allclose(fused.maps, np.full((1, 2, 2), 0.0 + 2.0))
