"""Metrics of labelled images, with bootstrap resamples for intervals, means and differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from uniad_ray.evaluation.labelled_images import Group, LabelledImages
from uniad_ray.evaluation.pixel_counts import CountChunks, count_chunks
from uniad_ray.evaluation.pixel_metrics import CategoryPixelMetrics
from uniad_ray.metrics import catalogue
from uniad_ray.metrics.bootstrap import percentile_interval, resampled_metrics
from uniad_ray.metrics.image import confusion
from uniad_ray.metrics.metric import ANOMALY_TYPE, MEAN_OF_CATEGORIES, MEAN_OF_TYPES, Metric
from uniad_ray.runs.reader import RunReader

MetricKey = tuple[str, str, str, str | None, str, float | None]


@dataclass(frozen=True)
class ResampledMetric:
    """One metric without interval, and its value in each bootstrap resample.

    Two runs on the same images use the same resamples, so their values are paired.

    Attributes:
        metric: The metric.
        resampled: float64, shape (resamples,), NaN where undefined; None without resamples.
    """

    metric: Metric
    resampled: npt.NDArray[np.float64] | None = None

    @property
    def key(self) -> MetricKey:
        """Identifies the metric and its images."""
        entry = self.metric
        return (entry.category, entry.group, entry.name, entry.expert, entry.metric, entry.limit)

    @property
    def is_share(self) -> bool:
        """Whether it is a fraction between 0 and 1, for which means and differences make sense."""
        entry = catalogue.find(self.metric.metric, self.metric.limit)
        return entry is not None and entry.unit == "share"

    def with_interval(self, confidence: float) -> Metric:
        """The metric with its percentile interval, if it has resamples."""
        interval = None if self.resampled is None else percentile_interval(self.resampled, confidence)
        if interval is None or self.metric.value is None:
            return self.metric
        return self.metric.model_copy(update={"low": interval.low, "high": interval.high})


def labelled_metrics(
    reader: RunReader,
    labelled: LabelledImages,
    resamples: int,
    notes: list[str],
    counter: CountChunks = count_chunks,
) -> Iterator[ResampledMetric]:
    """Yields image and pixel metrics of all groups of labelled images.

    Args:
        reader: The run.
        labelled: Its labelled images of one category.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        notes: Receives notes on what is excluded, and why.
        counter: Counts pixels; the metrics do not depend on it.
    """
    if not len(labelled):
        return
    pixels = CategoryPixelMetrics(reader, labelled, counter)
    groups = list(labelled.groups())
    types = [group for group in groups if group.group == ANOMALY_TYPE]
    of_types: list[ResampledMetric] = []
    for group in groups:
        metrics = list(_image_metrics(labelled, group, resamples))
        for name, limit, value, resampled in pixels.metrics(group, resamples):
            base = _base(labelled, group) | pixels.counts(group)
            note = "no image of the group has a map and a usable mask" if value is None else None
            metrics.append(ResampledMetric(Metric(**base, metric=name, limit=limit, value=value, note=note), resampled))
        yield from metrics
        if group.group == ANOMALY_TYPE:
            of_types += metrics
        if len(types) > 1 and group is types[-1]:
            yield from _means(of_types, {"name": MEAN_OF_TYPES}, "anomaly types")
    notes += pixels.notes


def mean_metrics(metrics: Sequence[ResampledMetric]) -> Iterator[ResampledMetric]:
    """Yields means over categories, group by group; nothing if there is only one category."""
    if len({metric.metric.category for metric in metrics}) > 1:
        yield from _means(metrics, {"category": MEAN_OF_CATEGORIES}, "categories")


def _means(metrics: Sequence[ResampledMetric], merged: dict[str, str], of_what: str) -> Iterator[ResampledMetric]:
    """Yields the mean of each set of fractions that differ in one field only.

    Args:
        metrics: The metrics to average.
        merged: Name of that field, and its value in the mean.
        of_what: Plural noun for the averaged things, used in notes.
    """
    gathered: dict[MetricKey, list[ResampledMetric]] = {}
    for metric in metrics:
        if metric.is_share:
            key = ResampledMetric(metric.metric.model_copy(update=merged)).key
            gathered.setdefault(key, []).append(metric)
    for members in gathered.values():
        known = [metric for metric in members if metric.metric.value is not None]
        samples = [metric.resampled for metric in known if metric.resampled is not None]
        mean = members[0].metric.model_copy(
            update={
                **merged,
                "value": float(np.mean([metric.metric.value for metric in known])) if known else None,
                "normal_images": _count(known, "normal_images", shared="name" in merged),
                "anomalous_images": _count(known, "anomalous_images", shared=False),
                "note": None if len(known) == len(members) else f"mean over {len(known)} of {len(members)} {of_what}",
            }
        )
        yield ResampledMetric(mean, np.mean(samples, axis=0) if samples and len(samples) == len(known) else None)


def _count(metrics: Sequence[ResampledMetric], field: str, *, shared: bool) -> int:
    """Number of images behind a mean; all groups of a category share its normal images."""
    counts = [int(getattr(metric.metric, field)) for metric in metrics]
    return max(counts, default=0) if shared else sum(counts)


def _image_metrics(labelled: LabelledImages, group: Group, resamples: int) -> Iterator[ResampledMetric]:
    """Yields metrics of the fused score, of the run's decisions, and of each expert's score."""
    labels, scores = labelled.anomalous[group.members], labelled.scores[group.members]
    experts = {name: values[group.members] for name, values in labelled.experts.items()}
    threshold = labelled.threshold
    base, counted = _base(labelled, group), confusion(labels, scores, threshold)
    entries = [entry for entry in catalogue.CATALOGUE if entry.of_scores or entry.of_decisions]
    with_intervals = [entry for entry in entries if entry.resampled]
    vectors = [scores, *experts.values()]
    formulas = [entry.resampled for entry in with_intervals if entry.resampled]
    resampled = (
        resampled_metrics(labels, vectors, [threshold] * len(vectors), formulas, resamples=resamples)
        if resamples
        else None
    )

    def samples(entry: catalogue.CatalogueEntry, vector: int) -> npt.NDArray[np.float64] | None:
        if resampled is None or entry not in with_intervals:
            return None
        drawn: npt.NDArray[np.float64] = resampled[vector, :, with_intervals.index(entry)]
        return drawn

    for entry in entries:
        if entry.of_decisions is not None:
            value = entry.of_decisions(counted)
        elif entry.of_scores is not None:
            value = entry.of_scores(labels, scores)
        yield ResampledMetric(Metric(**base, metric=entry.key, limit=entry.limit, value=value), samples(entry, 0))
    for index, (expert, own) in enumerate(experts.items(), start=1):
        for entry in entries:
            if entry.of_experts and entry.of_scores is not None:
                value = entry.of_scores(labels, own)
                metric = Metric(**base, expert=expert, metric=entry.key, limit=entry.limit, value=value)
                yield ResampledMetric(metric, samples(entry, index))


def _base(labelled: LabelledImages, group: Group) -> dict[str, Any]:
    anomalous = int(np.count_nonzero(labelled.anomalous[group.members]))
    return {
        "category": labelled.category,
        "group": group.group,
        "name": group.name,
        "normal_images": int(np.count_nonzero(group.members)) - anomalous,
        "anomalous_images": anomalous,
    }
