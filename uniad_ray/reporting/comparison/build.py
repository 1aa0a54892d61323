"""Compares runs on one archive: metrics with paired intervals, and images with a changed decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import RunError
from uniad_ray.evaluation.labelled_images import labelled_images, mark_notes
from uniad_ray.evaluation.paired_metrics import run_differences
from uniad_ray.metrics.bootstrap import LEVEL, RESAMPLES
from uniad_ray.metrics.difference import Difference
from uniad_ray.reporting.comparison.model import ChangedImage, ComparedRun, ComparisonReport, DecisionChanges
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.regions import view_differences
from uniad_ray.runs.reviewed_labels import NO_MARKS, marks_of
from uniad_ray.runs.reviews import Mark
from uniad_ray.runs.scored_images import COLUMNS, ScoredImages, by_category

LISTED_CHANGES = 1000
"""Maximum number of changed images in a report; its counts cover all."""

_COLUMNS = (*COLUMNS, "category", "source_uri", "split", "defect_kind")


def compare(
    runs: Sequence[str],
    *,
    out: str | None = None,
    with_marks: bool = True,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
) -> ComparisonReport:
    """Compares each run with the first, on the images scored in both.

    Reviewers' marks override labels, as in `evaluate`. All runs use the same labels: marks of any run apply to all
    runs, and the latest mark on an image wins.

    Args:
        runs: Roots of at least two finished runs on the same archive.
        out: HTML file to write; None writes no file.
        with_marks: Use reviewers' marks; a mark overrides the label of its image.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        confidence: Confidence of the intervals, above 0 and below 1.

    Raises:
        RunError: There are fewer than two runs, one is unfinished, or they are not on the same archive.
        StoreError: The file cannot be written.
    """
    readers = [RunReader(run) for run in runs]
    baseline = _check(readers)
    differences: list[Difference] = []
    changes: list[DecisionChanges] = []
    changed: list[ChangedImage] = []
    notes: list[str] = []
    marks = marks_of(readers) if with_marks else NO_MARKS
    first_images, first_labelled = _scored(baseline, marks, notes), labelled_images(baseline, marks)
    notes += mark_notes(first_labelled)
    if not any(len(labelled) for labelled in first_labelled):
        notes.append("no image has a label, so only decisions are compared")
    for reader in readers[1:]:
        notes += [f"{reader.location}: {difference}" for difference in view_differences(baseline, reader)]
        images = _scored(reader, marks, notes)
        differences += run_differences(
            (baseline, first_labelled), (reader, labelled_images(reader, marks)), resamples, confidence, notes
        )
        counts, listed = _changes(reader.location.uri, first_images, images, notes)
        changes.append(counts)
        changed += listed
    report = ComparisonReport(
        archive=baseline.archive.uri,
        archive_digest=baseline.manifest.plan.archive_digest,
        runs=tuple(_facts(reader) for reader in readers),
        differences=tuple(differences),
        changes=tuple(changes),
        changed_images=tuple(changed),
        notes=tuple(dict.fromkeys(notes)),
        confidence=confidence,
        resamples=resamples,
        path=Location.parse(out).uri if out else None,
    )
    if out:
        from uniad_ray.reporting.comparison.page import write_comparison_page

        write_comparison_page(report, readers, Location.parse(out))
    return report


def _check(readers: Sequence[RunReader]) -> RunReader:
    if len(readers) < 2:
        raise RunError("cannot compare a single run; name two or more runs")
    baseline, *others = readers
    named = [reader.location.uri for reader in readers]
    if len(set(named)) < len(named):
        raise RunError("the same run is named twice; name different runs")
    for reader in others:
        first, second = baseline.manifest.plan.archive_digest, reader.manifest.plan.archive_digest
        if first != second:
            raise RunError(
                f"{reader.location}: scored a different archive (digest {second[:12]}) than {baseline.location} "
                f"({first[:12]}); compare runs on the same archive"
            )
    return baseline


def _facts(reader: RunReader) -> ComparedRun:
    manifest = reader.manifest
    return ComparedRun(
        run=reader.location.uri,
        run_id=manifest.run_id,
        code_version=manifest.plan.code_version,
        bundles={category: bundle.version for category, bundle in manifest.plan.bundles.items()},
        images=manifest.images,
        called_anomalous=manifest.anomalous,
        errors=manifest.errors,
    )


def _scored(reader: RunReader, marks: Mapping[str, Mark], notes: list[str]) -> dict[str, ScoredImages]:
    """Scored images, by category."""
    every = by_category(reader.scores(_COLUMNS))
    scored = {images.category: images.reviewed(marks).with_score() for images in every}
    errors = sum(map(len, every)) - sum(map(len, scored.values()))
    if errors:
        notes.append(f"{reader.location}: {errors} images could not be scored")
    return scored


def _changes(
    run: str, first: Mapping[str, ScoredImages], second: Mapping[str, ScoredImages], notes: list[str]
) -> tuple[DecisionChanges, list[ChangedImage]]:
    """Counts the changed decisions, and lists those whose score moved furthest relative to the threshold."""
    both = 0
    changed: list[ChangedImage] = []
    for category in first.keys() & second.keys():
        before, after = first[category].shared(second[category])
        both += len(before)
        differs = before.called != after.called
        changed += _changed_images(run, before.take(differs), after.take(differs))
    only = max(sum(map(len, first.values())), sum(map(len, second.values()))) - both
    if only:
        notes.append(f"{run}: {only} images were scored in only one of the runs and are left out")
    changed.sort(key=lambda image: (-_shift(image), image.row_key))
    mended = [image.is_mended for image in changed if image.is_mended is not None]
    counts = DecisionChanges(
        run=run,
        images=both,
        changed=len(changed),
        to_anomalous=sum(image.decision == "anomalous" for image in changed),
        to_normal=sum(image.decision == "normal" for image in changed),
        labelled=len(mended),
        mended=sum(mended),
        broken=len(mended) - sum(mended),
    )
    return counts, changed[:LISTED_CHANGES]


def _changed_images(run: str, before: ScoredImages, after: ScoredImages) -> Iterator[ChangedImage]:
    """Yields the changed images; both arguments hold the same images in the same order."""
    rows = after.details.select(["row_key", "source_uri", "split", "defect_kind"]).to_pylist()
    for index, (row, label) in enumerate(zip(rows, after.labels, strict=True)):
        yield ChangedImage(
            run=run,
            category=after.category,
            label=label,
            baseline_score=before.scores[index],
            baseline_threshold=before.threshold,
            score=after.scores[index],
            threshold=after.threshold,
            decision="anomalous" if after.called[index] else "normal",
            **row,
        )


def _shift(image: ChangedImage) -> float:
    """How far the score moved relative to the threshold."""
    return abs((image.score - image.threshold) - (image.baseline_score - image.baseline_threshold))
