"""Verdicts of images without a text as rows of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from uniad_ray.pipelines.score.worker import at_common_threshold
from uniad_ray.scoring.scorer import Verdict


def verdict(score: float, threshold: float) -> Verdict:
    return Verdict(score, threshold, {"patch": score}, {"patch": score}, None, (), {"text": "no text"})


@pytest.mark.parametrize(("score", "expected"), [(2.5, 4.5), (1.0, 3.0), (2.0, 4.0)])
def test_score_is_shifted_and_the_decision_is_kept(score: float, expected: float) -> None:
    own = verdict(score, 2.0)
    found = at_common_threshold(own, 4.0)
    assert (found.score, found.threshold, found.decision) == (expected, 4.0, own.decision)
    assert found.raw == own.raw
    assert found.left_out == own.left_out


@pytest.mark.parametrize(("score", "decision"), [(2.5, "anomalous"), (1.5, "review"), (0.5, "normal")])
def test_review_threshold_is_shifted_too(score: float, decision: str) -> None:
    own = replace(verdict(score, 2.0), review_threshold=1.0)
    found = at_common_threshold(own, 4.0)
    assert (found.review_threshold, found.decision) == (3.0, decision)


def test_verdict_at_the_threshold_of_its_category_is_unchanged() -> None:
    own = verdict(2.5, 4.0)
    assert at_common_threshold(own, 4.0) is own
