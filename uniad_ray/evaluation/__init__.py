"""Evaluation of runs against labels and masks: image, pixel and paired metrics."""

from __future__ import annotations

from uniad_ray.evaluation.labelled_images import LabelledImages
from uniad_ray.evaluation.metrics import ResampledMetric, labelled_metrics, mean_metrics
from uniad_ray.evaluation.paired_metrics import run_differences
from uniad_ray.evaluation.pixel_metrics import CategoryPixelMetrics
from uniad_ray.evaluation.run import EvaluationReport, evaluate, evaluate_run

__all__ = [
    "CategoryPixelMetrics",
    "EvaluationReport",
    "LabelledImages",
    "ResampledMetric",
    "evaluate",
    "evaluate_run",
    "labelled_metrics",
    "mean_metrics",
    "run_differences",
]
