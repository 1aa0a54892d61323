"""Sets a finished run against its labels and masks, and stores the figures beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.config.base import StrictModel
from uniad_ray.evaluation.labelled_images import LabelledImages, labelled_images, mark_notes
from uniad_ray.evaluation.metrics import ResampledMetric, labelled_metrics, mean_metrics
from uniad_ray.metrics.bootstrap import LEVEL, RESAMPLES
from uniad_ray.metrics.metric import Metric
from uniad_ray.metrics.wording import count
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.reviewed_labels import NO_MARKS, marks_of
from uniad_ray.runs.reviews import Mark

METRICS_PATH = "evaluation/metrics.parquet"


class EvaluationReport(StrictModel):
    """All figures of a run.

    Attributes:
        run: Root of the run.
        run_id: Digest of its plan.
        splits: Split the figures of each category are of; categories without such images are absent.
        metrics: The figures; empty where no image has a label.
        notes: What a reader must know of them.
        unlabelled_images: Images left out since they have no label.
        error_images: Labelled images left out since they could not be scored.
        marked_images: Images whose label is that of a reviewer's mark.
        random_weights: Whether a network had random weights, so that the figures say nothing of quality.
        confidence: Confidence of the intervals.
        resamples: Bootstrap samples behind them; 0 where there are none.
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
    run: str, *, with_marks: bool = True, resamples: int = RESAMPLES, confidence: float = LEVEL
) -> EvaluationReport:
    """Computes image and pixel figures of a finished run and stores them as `evaluation/metrics.parquet`.

    Each anomaly type and each defect kind is set against all normal images of its category. Only the test split counts
    where a category has one, since the training images have been seen by the experts. What cannot be computed is left
    out with a note; a run without labels has notes only.

    Args:
        run: Root of the run.
        with_marks: Whether reviewers' marks give images their labels; a mark counts more than the label given.
        resamples: Bootstrap samples of the confidence intervals; 0 for none.
        confidence: Their confidence, between 0 and 1.

    Raises:
        RunError: The run is not finished, or is damaged.
        ArchiveError: A file of marks is damaged.
    """
    reader = RunReader(run)
    marks = marks_of([reader]) if with_marks else NO_MARKS
    return evaluate_run(reader, marks, resamples=resamples, confidence=confidence)


def evaluate_run(
    reader: RunReader, marks: Mapping[str, Mark], *, resamples: int, confidence: float
) -> EvaluationReport:
    """As `evaluate`, with the run and the marks as they were read.

    Args:
        reader: The run.
        marks: Marks by row key.
        resamples: Bootstrap samples of the confidence intervals; 0 for none.
        confidence: Their confidence, between 0 and 1.
    """
    found = labelled_images(reader, marks)
    metrics: list[Metric] = []
    averaged: list[ResampledMetric] = []
    notes: list[str] = []
    for labelled in found:
        notes += _notes(labelled)
        resampled = list(labelled_metrics(reader, labelled, resamples, notes))
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
        yield f"{labelled.category}: the run has no test images of it, only such as a fit may have seen; it is left out"
    elif len(labelled) and (labelled.anomalous.all() or not labelled.anomalous.any()):
        there, missing = ("anomalous", "normal") if labelled.anomalous.all() else ("normal", "anomalous")
        yield f"{labelled.category}: only {there} images; most figures need {missing} ones as well"


def _notes_of_all(found: Sequence[LabelledImages], unlabelled: int, errors: int) -> Iterator[str]:
    if errors:
        yield f"{count(errors, 'labelled image')} could not be scored, left out of all figures"
    if not any(len(labelled) for labelled in found):
        yield "no image has a label, so there are no figures; label images at ingest to have them"
    elif unlabelled:
        yield f"{count(unlabelled, 'image')} without a label, left out of all figures"
