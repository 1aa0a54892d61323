"""Evaluation on Ray: counts the pixels of large runs on many workers, for `evaluate` and `report`."""

from __future__ import annotations

from uniad_ray.pipelines.evaluate.job import SharedCounter

__all__ = ["SharedCounter"]
