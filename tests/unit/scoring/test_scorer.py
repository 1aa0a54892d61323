from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.profiles import small_config
from support.trees import png

from uniad_ray.errors import ImageError
from uniad_ray.experts.base import Evidence
from uniad_ray.perception.base import Perception
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.calibration import ExpertCalibration
from uniad_ray.scoring.fusion import Fusion
from uniad_ray.scoring.scorer import Scorer, Verdict


class MeanBrightness:
    """An extractor that counts its calls."""

    name = "mean"
    needs: frozenset[str] = frozenset()
    provides = frozenset({"mean/value"})

    def __init__(self) -> None:
        self.batches: list[int] = []

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        self.batches.append(len(perception))
        values = perception.images.reshape(len(perception), -1).mean(axis=1)
        return {"mean/value": torch.from_numpy(values.astype(np.float32)).reshape(-1, 1, 1, 1)}

    def lineage(self) -> dict[str, Any]:
        return {"weights": {"uri": "none", "sha256": "0", "trained": True}}


class Brightness:
    """An expert that scores the mean, or NaN for a black image."""

    name = "brightness"
    needs = frozenset({"mean/value"})

    def score(self, perception: Perception) -> Evidence:
        values = perception.fields["mean/value"].numpy().reshape(-1)
        scores = np.where(values == 0, np.nan, values)
        return Evidence(scores, None, [[f"mean {value:.0f}"] for value in values])


@pytest.fixture
def extractor() -> MeanBrightness:
    return MeanBrightness()


@pytest.fixture
def scorer(extractor: MeanBrightness) -> Scorer:
    calibrations = {"one": ExpertCalibration(mean=100, deviation=10), "two": ExpertCalibration(mean=0, deviation=1)}
    experts: dict[str, Any] = {"one": Brightness(), "two": Brightness()}
    config = small_config("fusion.weights={}")
    fusion = Fusion(config.fusion, calibrations, calibrations)
    return Scorer(config, PerceptionPipeline([extractor]), experts, fusion, threshold=121.0)


def grey(*values: int) -> np.ndarray:
    return np.stack([np.full((64, 64, 3), value, dtype=np.uint8) for value in values])


def test_a_verdict_by_hand(scorer: Scorer) -> None:
    (verdict,) = scorer.score(["a"], grey(110))
    assert isinstance(verdict, Verdict)
    assert verdict.raw == {"one": 110.0, "two": 110.0}
    assert verdict.calibrated == {"one": 1.0, "two": 110.0}
    assert verdict.score == 111.0
    assert (verdict.decision, verdict.is_anomalous) == ("normal", False)
    assert verdict.reasons == ("mean 110",)
    assert verdict.anomaly_map is None
    (at_threshold, above) = scorer.score(["b", "c"], grey(119, 120))
    assert isinstance(at_threshold, Verdict)
    assert isinstance(above, Verdict)
    assert (at_threshold.score, at_threshold.decision) == (120.9, "normal")
    assert (above.score, above.decision) == (122.0, "anomalous")


def test_network_runs_once_per_image(scorer: Scorer, extractor: MeanBrightness) -> None:
    scorer.score([str(i) for i in range(10)], grey(*range(100, 110)))
    assert extractor.batches == [4, 4, 2]


def test_non_finite_score_is_an_error(scorer: Scorer) -> None:
    bad, good = scorer.score(["a", "b"], grey(0, 110))
    assert isinstance(bad, ImageError)
    assert bad.kind == "not_scorable"
    assert "one, two" in str(bad)
    assert isinstance(good, Verdict)


def test_corrupt_file_does_not_affect_others(scorer: Scorer) -> None:
    files = [png(1), b"no image", png(2), b""]
    first, second, third, fourth = scorer.score_encoded(["a", "b", "c", "d"], files)
    assert isinstance(second, ImageError)
    assert isinstance(fourth, ImageError)
    assert (second.kind, fourth.kind) == ("not_an_image", "empty")
    alone = scorer.score_encoded(["a"], files[:1])[0]
    assert isinstance(first, Verdict)
    assert isinstance(alone, Verdict)
    assert first.score == alone.score
    assert isinstance(third, Verdict)


@pytest.mark.parametrize(
    ("score", "review", "decision"),
    [
        (2.1, 1.0, "anomalous"),
        (2.0, 1.0, "review"),
        (1.0, 1.0, "normal"),
        (1.5, None, "normal"),
        (2.5, 3.0, "anomalous"),
    ],
)
def test_decisions_between_two_thresholds(score: float, review: float | None, decision: str) -> None:
    assert Verdict(score, 2.0, {}, {}, None, (), review_threshold=review).decision == decision
