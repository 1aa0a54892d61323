"""Histogram, curves and means per expert of one category's scores, each of bounded size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

from uniad_ray.metrics.image import Curve, precision_recall_curve, roc_curve
from uniad_ray.metrics.metric import ALL, Metric
from uniad_ray.report.model import Curves, ExpertContribution, Histogram, OperatingPoint
from uniad_ray.report.scored import ScoredRows

BINS = 40
CURVE_POINTS = 200
_TAIL_QUANTILE = 0.95
_FAR = 1.5


def score_histogram(rows: ScoredRows) -> Histogram:
    """Counts scores in bins of one width, of which the threshold is an edge.

    Where the highest scores lie far from all others, the last bin takes them in, so that the rest can be told apart.
    """
    lower = min(float(rows.scores.min()), rows.threshold)
    upper, open_ended = _upper_end(rows, lower)
    width = (upper - lower) / BINS or 1.0
    # A bin holds its upper edge, so that those right of the threshold hold exactly what is called anomalous.
    first = min(math.floor((lower - rows.threshold) / width), -1)
    last = max(math.ceil((upper - rows.threshold) / width), 1)
    edges = rows.threshold + width * np.arange(first, last + 1)
    bins = np.clip(np.searchsorted(edges, rows.scores, side="left") - 1, 0, len(edges) - 2)
    counts = {
        name: tuple(int(count) for count in np.bincount(bins[members], minlength=len(edges) - 1))
        for name, members in _groups(rows).items()
        if members.any()
    }
    return Histogram(edges=tuple(edges.tolist()), counts=counts, open_ended=open_ended)


def _upper_end(rows: ScoredRows, lower: float) -> tuple[float, bool]:
    highest = max(float(rows.scores.max()), rows.threshold)
    if not rows.called.any():
        return highest, False
    tail = float(np.quantile(rows.scores[rows.called], _TAIL_QUANTILE))
    if highest - lower <= _FAR * (tail - lower):
        return highest, False
    return tail, True


def _groups(rows: ScoredRows) -> dict[str, np.ndarray]:
    types = rows.table.column("anomaly_type").to_numpy(zero_copy_only=False)
    logical, structural = rows.anomalous & (types == "logical"), rows.anomalous & (types == "structural")
    return {
        "normal": rows.normal,
        "anomalous": rows.anomalous & ~logical & ~structural,
        "structural": structural,
        "logical": logical,
        "unlabelled": rows.unlabelled,
    }


def curves(rows: ScoredRows) -> Curves | None:
    """ROC and precision-recall curve of normal against anomalous images; None without both."""
    labelled = ~rows.unlabelled
    labels, scores = rows.anomalous[labelled], rows.scores[labelled]
    roc = roc_curve(labels, scores, CURVE_POINTS)
    precision_recall = precision_recall_curve(labels, scores, CURVE_POINTS)
    if roc is None or precision_recall is None:
        return None
    false_alarms, found = int(rows.false_alarms.sum()), int((rows.anomalous & rows.called).sum())
    return Curves(
        roc=_points(roc),
        precision_recall=_points(precision_recall),
        operating_point=OperatingPoint(
            false_positive_rate=false_alarms / int(rows.normal.sum()),
            recall=found / int(rows.anomalous.sum()),
            precision=found / (found + false_alarms) if found + false_alarms else None,
        ),
    )


def _points(curve: Curve) -> tuple[tuple[float, float], ...]:
    return tuple(zip(curve.x.tolist(), curve.y.tolist(), strict=True))


def expert_contributions(
    rows: ScoredRows, metrics: Sequence[Metric], weights: Mapping[str, float] | None
) -> tuple[ExpertContribution, ...]:
    """What each expert says of normal, anomalous and unlabelled images on average.

    Args:
        rows: Rows of one category.
        metrics: Figures of that category.
        weights: Weight in the fusion by expert; None where it is not known.
    """
    nested = rows.table.column("experts").combine_chunks()
    owners = pc.list_parent_indices(nested).to_numpy()
    flat = pc.list_flatten(nested)
    names = flat.field("expert").to_numpy(zero_copy_only=False)
    values = flat.field("calibrated").to_numpy()
    aurocs = {
        entry.expert: entry
        for entry in metrics
        if entry.metric == "image_auroc" and entry.group == ALL and entry.expert is not None
    }
    groups = {"normal": rows.normal, "anomalous": rows.anomalous, "unlabelled": rows.unlabelled}
    return tuple(
        ExpertContribution(
            expert=name,
            weight=None if weights is None else weights.get(name),
            image_auroc=aurocs.get(name),
            mean_calibrated={
                group: float(values[chosen].mean())
                for group, members in groups.items()
                if (chosen := (names == name) & members[owners]).any()
            },
        )
        for name in dict.fromkeys(names.tolist())
    )
