"""Metrics of scores and anomaly maps against labels and masks.

`catalogue` lists the metrics; `pixel` holds those of anomaly maps.
"""

from __future__ import annotations

from uniad_ray.metrics.bootstrap import Interval, Resamples
from uniad_ray.metrics.difference import Difference
from uniad_ray.metrics.image import (
    Confusion,
    Curve,
    F1Max,
    average_precision,
    confusion,
    f1_max,
    image_auroc,
    precision_recall_curve,
    roc_curve,
)
from uniad_ray.metrics.metric import Metric

__all__ = [
    "Confusion",
    "Curve",
    "Difference",
    "F1Max",
    "Interval",
    "Metric",
    "Resamples",
    "average_precision",
    "confusion",
    "f1_max",
    "image_auroc",
    "precision_recall_curve",
    "roc_curve",
]
