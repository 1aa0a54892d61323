"""Paired metrics of two runs, on the images scored in both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from uniad_ray.evaluation.labelled_images import LabelledImages
from uniad_ray.evaluation.metrics import ResampledMetric, labelled_metrics, mean_metrics
from uniad_ray.metrics.bootstrap import percentile_interval
from uniad_ray.metrics.difference import Difference
from uniad_ray.runs.reader import RunReader


def run_differences(
    baseline: tuple[RunReader, Sequence[LabelledImages]],
    other: tuple[RunReader, Sequence[LabelledImages]],
    resamples: int,
    confidence: float,
    notes: list[str],
) -> Iterator[Difference]:
    """Yields the differences of all metrics, category by category, then of the means over categories.

    Both runs are evaluated on the same images in the same order, so they use the same bootstrap resamples. Intervals
    are those of the paired differences.

    Args:
        baseline: The run to compare with, and its labelled images.
        other: The run to compare, and its labelled images.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        confidence: Confidence of the intervals, above 0 and below 1.
        notes: Receives notes on what is left out, and why.
    """
    after = {labelled.category: labelled for labelled in other[1]}
    averaged: tuple[list[ResampledMetric], list[ResampledMetric]] = ([], [])
    for labelled in baseline[1]:
        if labelled.category not in after:
            notes.append(f"{other[0].location}: no images of category {labelled.category}")
            continue
        pair = labelled.shared(after[labelled.category])
        if not len(pair[0]):
            continue
        before, now = (
            list(labelled_metrics(reader, aligned, resamples, notes))
            for reader, aligned in zip((baseline[0], other[0]), pair, strict=True)
        )
        yield from _pair(other[0].location.uri, before, now, confidence)
        for kept, own in zip(averaged, (before, now), strict=True):
            kept += [metric for metric in own if metric.metric.group != "defect_kind"]
    before, now = (list(mean_metrics(kept)) for kept in averaged)
    yield from _pair(other[0].location.uri, before, now, confidence)


def _pair(
    run: str, before: Sequence[ResampledMetric], after: Sequence[ResampledMetric], confidence: float
) -> Iterator[Difference]:
    known = {metric.key: metric for metric in before}
    for metric in after:
        entry = metric.metric
        if metric.key in known and entry.expert is None and metric.is_share:
            baseline = known[metric.key]
            difference = low = high = None
            if baseline.metric.value is not None and entry.value is not None:
                difference = entry.value - baseline.metric.value
                if metric.resampled is not None and baseline.resampled is not None:
                    low, high = percentile_interval(metric.resampled - baseline.resampled, confidence) or (None, None)
            yield Difference(
                run=run,
                category=entry.category,
                group=entry.group,
                name=entry.name,
                metric=entry.metric,
                limit=entry.limit,
                baseline=baseline.metric.value,
                value=entry.value,
                difference=difference,
                low=low,
                high=high,
                normal_images=entry.normal_images,
                anomalous_images=entry.anomalous_images,
            )
