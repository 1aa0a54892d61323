"""Fit pipeline: fits categories in parallel on Ray."""

from __future__ import annotations

from uniad_ray.pipelines.fit.job import FitReport, fit

__all__ = ["FitReport", "fit"]
