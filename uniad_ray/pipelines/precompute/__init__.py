"""Precomputed features, segments and descriptions, stored as a sidecar by Ray Data."""

from __future__ import annotations

from uniad_ray.pipelines.precompute.job import PrecomputeReport, precompute

__all__ = ["PrecomputeReport", "precompute"]
