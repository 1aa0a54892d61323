"""Evaluates a finished run against labels and masks, and stores the metrics in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.config.base import StrictModel
from uniad_ray.evaluation.labelled_images import LabelledImages, labelled_images, mark_notes
from uniad_ray.evaluation.metrics import ResampledMetric, labelled_metrics, mean_metrics
from uniad_ray.evaluation.pixel_counts import CountChunks, count_chunks
from uniad_ray.metrics.bootstrap import LEVEL, RESAMPLES
from uniad_ray.metrics.metric import Metric
from uniad_ray.metrics.wording import count
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.reviewed_labels import NO_MARKS, marks_of
from uniad_ray.runs.reviews import Mark

METRICS_PATH = "evaluation/metrics.parquet"


class EvaluationReport(StrictModel):
    """The metrics of a run.

    Attributes:
        run: Root of the run.
        run_id: Digest of its plan.
        splits: Evaluated split, by category; a category without a split to evaluate is absent.
        metrics: The metrics; empty if no image has a label.
        notes: Remarks on the metrics, such as what was left out.
        unlabelled_images: Number of images excluded because they have no label.
        error_images: Number of labelled images excluded because they could not be scored.
        marked_images: Number of images labelled by a reviewer's mark.
        random_weights: Whether a network had random weights, which makes the metrics meaningless.
        confidence: Confidence of the intervals, above 0 and below 1.
        resamples: Number of bootstrap resamples; 0 if there are no intervals.
    """

    run: str
    run_id: str
    splits: dict[str, str]
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...]
    unlabelled_images: int
    error_images: int
    marked_images: int
    random_weights: bool
    confidence: float
    resamples: int


def evaluate(
    run: str,
    *,
    with_marks: bool = True,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
    counter: CountChunks = count_chunks,
) -> EvaluationReport:
    """Computes the image and pixel metrics of a finished run, and stores them as `evaluation/metrics.parquet`.

    Each anomaly type and each defect kind is compared with all normal images of its category. If a category has a test
    split, only that is evaluated, because the experts have seen the training images. Notes name what cannot be
    computed. A run without labels has only notes.

    Args:
        run: Root of the run.
        with_marks: Use reviewers' marks; a mark overrides the label of its image.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        confidence: Confidence of the intervals, above 0 and below 1.
        counter: Counts pixels; the metrics do not depend on it. By default, this process counts them.

    Raises:
        RunError: The run is unfinished or corrupt.
        ArchiveError: A file of marks is corrupt.
    """
    reader = RunReader(run)
    marks = marks_of([reader]) if with_marks else NO_MARKS
    return evaluate_run(reader, marks, resamples=resamples, confidence=confidence, counter=counter)


def evaluate_run(
    reader: RunReader,
    marks: Mapping[str, Mark],
    *,
    resamples: int,
    confidence: float,
    counter: CountChunks = count_chunks,
) -> EvaluationReport:
    """Evaluates an open run with given marks, like `evaluate`.

    Args:
        reader: The run.
        marks: Marks, by row key.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        confidence: Confidence of the intervals, above 0 and below 1.
        counter: Counts pixels; the metrics do not depend on it.
    """
    found = labelled_images(reader, marks)
    metrics: list[Metric] = []
    averaged: list[ResampledMetric] = []
    notes: list[str] = []
    for labelled in found:
        notes += _notes(labelled)
        resampled = list(labelled_metrics(reader, labelled, resamples, notes, counter))
        metrics += [metric.with_interval(confidence) for metric in resampled]
        averaged += [metric for metric in resampled if metric.metric.group != "defect_kind"]
    metrics += [metric.with_interval(confidence) for metric in mean_metrics(averaged)]
    unlabelled = sum(labelled.unlabelled_images for labelled in found)
    errors = sum(labelled.error_images for labelled in found)
    notes += mark_notes(found)
    notes += _notes_of_all(found, unlabelled, errors)
    schema = dataset_schema("metric")
    table = schema.table({name: [getattr(entry, name) for entry in metrics] for name in schema.arrow.names})
    (reader.location / METRICS_PATH).write_bytes(encode_table(schema, table))
    return EvaluationReport(
        run=reader.location.uri,
        run_id=reader.manifest.run_id,
        splits={labelled.category: labelled.split for labelled in found if labelled.split is not None},
        metrics=tuple(metrics),
        notes=tuple(notes),
        unlabelled_images=unlabelled,
        error_images=errors,
        marked_images=sum(labelled.marked.total() for labelled in found),
        random_weights=reader.manifest.random_weights,
        confidence=confidence,
        resamples=resamples,
    )


def _notes(labelled: LabelledImages) -> Iterator[str]:
    if labelled.split is None:
        yield f"{labelled.category}: excluded, because the run has no test images of it, only images of other splits"
    elif len(labelled) and (labelled.anomalous.all() or not labelled.anomalous.any()):
        there, missing = ("anomalous", "normal") if labelled.anomalous.all() else ("normal", "anomalous")
        yield f"{labelled.category}: only {there} images; most metrics need {missing} images too"


def _notes_of_all(found: Sequence[LabelledImages], unlabelled: int, errors: int) -> Iterator[str]:
    if errors:
        yield f"{count(errors, 'labelled image')} could not be scored, excluded from all metrics"
    if not any(len(labelled) for labelled in found):
        yield "no image has a label, so there are no metrics; label images at ingest"
    elif unlabelled:
        yield f"{count(unlabelled, 'image')} without a label, excluded from all metrics"
