"""Histogram, curves and expert means of the scores of one category, each of bounded size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from uniad_ray.metrics.image import Curve, precision_recall_curve, roc_curve
from uniad_ray.metrics.metric import ALL, Metric
from uniad_ray.reporting.model import Curves, ExpertContribution, Histogram, OperatingPoint
from uniad_ray.runs.scored_images import ScoredImages

BINS = 40
CURVE_POINTS = 200
_TAIL_QUANTILE = 0.95
_FAR = 1.5


def score_histogram(images: ScoredImages) -> Histogram:
    """Counts scores in bins of equal width; the threshold is an edge.

    If the highest scores lie far from the others, the last bin also counts them; otherwise all other scores would
    share a few bins.
    """
    lower = min(float(images.scores.min()), images.threshold)
    upper, open_ended = _upper_end(images, lower)
    width = (upper - lower) / BINS or 1.0
    # Bins include their upper edge: the bins right of the threshold count exactly the images called anomalous.
    first = min(math.floor((lower - images.threshold) / width), -1)
    last = max(math.ceil((upper - images.threshold) / width), 1)
    edges = images.threshold + width * np.arange(first, last + 1)
    bins = np.clip(np.searchsorted(edges, images.scores, side="left") - 1, 0, len(edges) - 2)
    counts = {
        name: tuple(int(count) for count in np.bincount(bins[members], minlength=len(edges) - 1))
        for name, members in _groups(images).items()
        if members.any()
    }
    return Histogram(edges=tuple(edges.tolist()), counts=counts, open_ended=open_ended)


def _upper_end(images: ScoredImages, lower: float) -> tuple[float, bool]:
    highest = max(float(images.scores.max()), images.threshold)
    if not images.called.any():
        return highest, False
    tail = float(np.quantile(images.scores[images.called], _TAIL_QUANTILE))
    if highest - lower <= _FAR * (tail - lower):
        return highest, False
    return tail, True


def _groups(images: ScoredImages) -> dict[str, np.ndarray]:
    logical, structural = (images.anomalous & images.equals("anomaly_type", name) for name in ("logical", "structural"))
    return {
        "normal": images.normal,
        "anomalous": images.anomalous & ~logical & ~structural,
        "structural": structural,
        "logical": logical,
        "unlabelled": images.unlabelled,
    }


def curves(images: ScoredImages) -> Curves | None:
    """ROC and precision-recall curves of normal against anomalous images; None unless there are both."""
    labelled = ~images.unlabelled
    labels, scores = images.anomalous[labelled], images.scores[labelled]
    roc = roc_curve(labels, scores, CURVE_POINTS)
    precision_recall = precision_recall_curve(labels, scores, CURVE_POINTS)
    if roc is None or precision_recall is None:
        return None
    false_alarms, found = int(images.false_alarms.sum()), int((images.anomalous & images.called).sum())
    return Curves(
        roc=_points(roc),
        precision_recall=_points(precision_recall),
        operating_point=OperatingPoint(
            false_positive_rate=false_alarms / int(images.normal.sum()),
            recall=found / int(images.anomalous.sum()),
            precision=found / (found + false_alarms) if found + false_alarms else None,
        ),
    )


def _points(curve: Curve) -> tuple[tuple[float, float], ...]:
    return tuple(zip(curve.x.tolist(), curve.y.tolist(), strict=True))


def expert_contributions(
    images: ScoredImages, metrics: Sequence[Metric], weights: Mapping[str, float] | None
) -> tuple[ExpertContribution, ...]:
    """Mean scores of each expert on normal, anomalous and unlabelled images.

    Args:
        images: Scored images of one category.
        metrics: Metrics of that category.
        weights: Weight in the fusion, by expert; None if unknown.
    """
    aurocs = {
        entry.expert: entry
        for entry in metrics
        if entry.metric == "image_auroc" and entry.group == ALL and entry.expert is not None
    }
    groups = {"normal": images.normal, "anomalous": images.anomalous, "unlabelled": images.unlabelled}
    return tuple(
        ExpertContribution(
            expert=name,
            weight=None if weights is None else weights.get(name),
            image_auroc=aurocs.get(name),
            mean_calibrated={
                group: float(values[chosen].mean())
                for group, members in groups.items()
                if (chosen := members & ~np.isnan(values)).any()
            },
        )
        for name, values in images.experts.items()
    )
