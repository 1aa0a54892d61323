"""Comparison of runs, rendered as one HTML file."""

from __future__ import annotations

from uniad_ray.reporting.comparison.build import compare
from uniad_ray.reporting.comparison.model import ComparisonReport

__all__ = ["ComparisonReport", "compare"]
