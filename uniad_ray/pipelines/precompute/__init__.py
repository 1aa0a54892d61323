"""Precompute pipeline: stores features, segments and descriptions in a sidecar with Ray Data."""

from __future__ import annotations

from uniad_ray.pipelines.precompute.job import PrecomputeReport, precompute

__all__ = ["PrecomputeReport", "precompute"]
