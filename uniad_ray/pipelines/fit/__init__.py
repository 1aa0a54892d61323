"""Fit pipeline: fits categories in parallel on Ray."""

from __future__ import annotations

from uniad_ray.pipelines.fit.job import fit
from uniad_ray.pipelines.fit.report import FitReport

__all__ = ["FitReport", "fit"]
