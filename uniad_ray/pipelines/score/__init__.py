"""Score pipeline: scores archives with Ray Data."""

from __future__ import annotations

from uniad_ray.pipelines.score.job import ScoreReport, score

__all__ = ["ScoreReport", "score"]
