"""Compares runs on the same archive: figures with paired intervals, and the images whose decision differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.object_store import Location
from uniad_ray.errors import RunError
from uniad_ray.metrics.bootstrap import LEVEL, RESAMPLES
from uniad_ray.pipelines.cohorts import cohorts
from uniad_ray.pipelines.differences import run_differences
from uniad_ray.pipelines.marks import Mark
from uniad_ray.pipelines.reviewed_labels import NO_MARKS, mark_notes, marks_of, with_reviewed_labels
from uniad_ray.pipelines.run_reader import RunReader
from uniad_ray.report.comparison import ChangedImage, ComparedRun, ComparisonReport, DecisionChanges, Difference

LISTED_CHANGES = 1000
"""Changed images that a report lists; the counts say how many there are."""

_COLUMNS = (
    "row_key",
    "source_uri",
    "category",
    "split",
    "label",
    "defect_kind",
    "status",
    "score",
    "threshold",
    "decision",
)


def compare(
    runs: Sequence[str],
    *,
    out: str | None = None,
    with_marks: bool = True,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
) -> ComparisonReport:
    """Compares runs with the first of them, over the images that both have scored.

    Reviewers' marks give images their labels as in `evaluate`. The runs are on the same archive, and what an image is
    does not depend on the run: the marks of all runs count for all, of several on an image the latest, so that every
    run is held against the same labels.

    Args:
        runs: Roots of at least two finished runs on the same archive.
        out: HTML file to write; None writes none.
        with_marks: Whether reviewers' marks give images their labels.
        resamples: Bootstrap samples of the paired confidence intervals; 0 for none.
        confidence: Their confidence, between 0 and 1.

    Raises:
        RunError: Fewer than two runs, one is not finished, or they are not on the same archive.
    """
    readers = [RunReader(run) for run in runs]
    baseline = _check(readers)
    differences: list[Difference] = []
    changes: list[DecisionChanges] = []
    changed: list[ChangedImage] = []
    notes: list[str] = []
    marks = marks_of(readers) if with_marks else NO_MARKS
    first_rows, first_cohorts = _scored(baseline, marks, notes), cohorts(baseline, marks)
    marked = sum((cohort.marked for cohort in first_cohorts), start=Counter[str]())
    notes += mark_notes(marked, sum(cohort.unused_marks for cohort in first_cohorts))
    if not any(cohort.row_keys for cohort in first_cohorts):
        notes.append("no image has a label, so there are decisions to compare but no figures")
    for reader in readers[1:]:
        rows = _scored(reader, marks, notes)
        differences += run_differences(
            (baseline, first_cohorts), (reader, cohorts(reader, marks)), resamples, confidence, notes
        )
        counts, images = _changes(reader.location.uri, first_rows, rows, notes)
        changes.append(counts)
        changed += images
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
        from uniad_ray.pipelines.comparison_page import write_comparison_page

        write_comparison_page(report, readers, Location.parse(out))
    return report


def _check(readers: Sequence[RunReader]) -> RunReader:
    if len(readers) < 2:
        raise RunError("one run alone cannot be compared; name two or more")
    baseline, *others = readers
    named = [reader.location.uri for reader in readers]
    if len(set(named)) < len(named):
        raise RunError("a run is named twice; name different runs")
    for reader in others:
        first, second = baseline.manifest.plan.archive_digest, reader.manifest.plan.archive_digest
        if first != second:
            raise RunError(
                f"{reader.location}: scored another archive (digest {second[:12]}) than {baseline.location} "
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


def _scored(reader: RunReader, marks: Mapping[str, Mark], notes: list[str]) -> pa.Table:
    table = with_reviewed_labels(reader.scores(_COLUMNS), marks)
    good = table.filter(pc.equal(table.column("status"), "ok"))
    if good.num_rows < table.num_rows:
        notes.append(f"{reader.location}: {table.num_rows - good.num_rows} images could not be scored")
    return good


def _changes(
    run: str, first: pa.Table, second: pa.Table, notes: list[str]
) -> tuple[DecisionChanges, list[ChangedImage]]:
    """Counts the decisions that differ, and lists those furthest from the thresholds."""
    renamed = first.select(["row_key", "score", "threshold", "decision"]).rename_columns(
        ["row_key", "baseline_score", "baseline_threshold", "baseline_decision"]
    )
    both = second.join(renamed, keys="row_key", join_type="inner")
    only = max(first.num_rows, second.num_rows) - both.num_rows
    if only:
        notes.append(f"{run}: {only} images were scored in one of the runs only and are left out")
    rows = both.filter(pc.not_equal(both.column("decision"), both.column("baseline_decision"))).to_pylist()
    rows.sort(key=lambda row: (-_shift(row), row["row_key"]))
    right = [row["label"] == row["decision"] for row in rows if row["label"] is not None]
    counts = DecisionChanges(
        run=run,
        images=both.num_rows,
        changed=len(rows),
        to_anomalous=sum(row["decision"] == "anomalous" for row in rows),
        to_normal=sum(row["decision"] == "normal" for row in rows),
        labelled=len(right),
        mended=sum(right),
        broken=len(right) - sum(right),
    )
    names = set(ChangedImage.model_fields) - {"run"}
    return counts, [ChangedImage(run=run, **{name: row[name] for name in names}) for row in rows[:LISTED_CHANGES]]


def _shift(row: dict[str, float]) -> float:
    """How far the score has moved against the threshold."""
    return float(np.abs((row["score"] - row["threshold"]) - (row["baseline_score"] - row["baseline_threshold"])))
