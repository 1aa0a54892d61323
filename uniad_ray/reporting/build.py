"""Writes the report of a finished run from the run, its bundles and its archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, StoreError
from uniad_ray.evaluation.pixel_counts import CountChunks, count_chunks
from uniad_ray.evaluation.run import EvaluationReport, evaluate_run
from uniad_ray.metrics.bootstrap import LEVEL, RESAMPLES
from uniad_ray.metrics.metric import Metric
from uniad_ray.reporting.captions import with_captions
from uniad_ray.reporting.distributions import curves, expert_contributions, score_histogram
from uniad_ray.reporting.document import encode_json, encode_parquet
from uniad_ray.reporting.drawing.pictures import Picture, map_scale
from uniad_ray.reporting.drawing.run_pictures import draw_rows
from uniad_ray.reporting.markdown import render_markdown
from uniad_ray.reporting.model import (
    CategoryDetail,
    CategoryResult,
    ExpertChoice,
    ImageErrorRow,
    Lineage,
    Network,
    Report,
    RunFacts,
    TimingRow,
)
from uniad_ray.reporting.selection import (
    GALLERY_COLUMNS,
    detailed_categories,
    gallery,
    images_per_section,
    parts_summary,
)
from uniad_ray.runs.plan import RunManifest, RunPlan
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.reviewed_labels import NO_MARKS, marks_of
from uniad_ray.runs.reviews import Mark
from uniad_ray.runs.scored_images import COLUMNS, ScoredImages, by_category
from uniad_ray.scoring.bundles.bundle import BundleManifest
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.selection import ExpertSelection

Format = Literal["html", "json", "parquet", "markdown"]
_FILE_NAMES: dict[Format, str] = {
    "html": "report/report.html",
    "json": "report/report.json",
    "parquet": "report/report.parquet",
    "markdown": "report/report.md",
}
MAX_LISTED_ERRORS = 100
_COLUMNS = (*COLUMNS, *GALLERY_COLUMNS[1:], "category", "error_kind", "error", "decision")


class ReportResult(StrictModel):
    """A written report.

    Attributes:
        run: Root of the run.
        run_id: Digest of its plan.
        path: The file.
        format: `html`, `json`, `parquet` or `markdown`.
        bytes: Size of the file.
        images: Number of score rows in the run.
        detailed: Categories with charts and a gallery.
        pictures: Number of gallery images that are shown.
        missing_pictures: Number of gallery images that cannot be shown.
    """

    run: str
    run_id: str
    path: str
    format: Format
    bytes: int
    images: int
    detailed: tuple[str, ...]
    pictures: int
    missing_pictures: int


def report(
    run: str,
    *,
    format: Format = "html",
    out: str | None = None,
    with_marks: bool = True,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
    captions: str | None = None,
    counter: CountChunks = count_chunks,
) -> ReportResult:
    """Evaluates a finished run and writes a report as one file; the same run and marks give the same bytes.

    Reviewers' marks override labels everywhere: in metrics, curves, counts and the gallery.

    Args:
        run: Root of the run.
        format: Format of the report.
        out: File to write; default is below `RUN/report/`.
        with_marks: Use reviewers' marks; a mark overrides the label of its image.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        confidence: Confidence of the intervals, above 0 and below 1.
        captions: Root of a caption sidecar, to show its texts beside the images.
        counter: Counts pixels; the report does not depend on it. By default, this process counts them.

    Raises:
        RunError: There is no run, or it is unfinished or corrupt.
        SidecarError: There are no captions, or they are unfinished, corrupt or of another archive.
        StoreError: The file cannot be written.
    """
    reader = RunReader(run)
    marks = marks_of([reader]) if with_marks else NO_MARKS
    evaluation = evaluate_run(reader, marks, resamples=resamples, confidence=confidence, counter=counter)
    content = _gather(reader, marks, evaluation)
    if captions is not None:
        content = with_captions(content, Location.parse(captions))
    pictures: dict[str, Picture] = {}
    match format:
        case "html":
            # Matplotlib takes a second to import.
            from uniad_ray.reporting.html import render_html

            pictures = _draw_pictures(reader, content)
            data = render_html(content, pictures)
        case "json":
            data = encode_json(content)
        case "parquet":
            data = encode_parquet(content)
        case "markdown":
            data = render_markdown(content)
    path = Location.parse(out) if out else reader.location / _FILE_NAMES[format]
    path.write_bytes(data)
    missing = sum(picture.thumbnail is None for picture in pictures.values())
    return ReportResult(
        run=reader.location.uri,
        run_id=reader.manifest.run_id,
        path=path.uri,
        format=format,
        bytes=len(data),
        images=reader.manifest.images,
        detailed=tuple(detail.category for detail in content.details),
        pictures=len(pictures) - missing,
        missing_pictures=missing,
    )


def _gather(reader: RunReader, marks: Mapping[str, Mark], evaluation: EvaluationReport) -> Report:
    """Gathers the content of a report, without pictures.

    Args:
        reader: The run.
        marks: Reviewers' marks, by row key.
        evaluation: Metrics of the run with these marks.
    """
    manifest = reader.manifest
    rows = reader.scores(_COLUMNS)
    every = {images.category: images.reviewed(marks) for images in by_category(rows)}
    results: list[CategoryResult] = []
    scored: dict[str, ScoredImages] = {}
    for category in sorted(manifest.categories):
        split = evaluation.splits.get(category)
        judged = every[category].with_score(split)
        if len(judged):
            scored[category] = judged
        results.append(_category_result(manifest, every[category], split, scored.get(category)))
    chosen = detailed_categories(results)
    per_section = images_per_section(len(chosen))
    return Report(
        run=_run_facts(reader),
        notes=evaluation.notes,
        confidence=evaluation.confidence,
        resamples=evaluation.resamples,
        metrics=evaluation.metrics,
        categories=tuple(results),
        details=tuple(
            _category_detail(entry, scored[entry.category], evaluation.metrics, per_section)
            for entry in results
            if entry.category in chosen
        ),
        error_kinds=_error_kinds(rows),
        errors=_listed_errors(rows),
        timings=tuple(
            TimingRow(
                **timing.model_dump(exclude={"chunks", "seconds", "store_retries"}),
                **timing.seconds.model_dump(),
            )
            for timing in reader.timings()
        ),
        parts=parts_summary(reader.parts()),
    )


def _draw_pictures(reader: RunReader, content: Report) -> dict[str, Picture]:
    """Draws the images of the galleries; an unreadable image becomes a placeholder with the reason.

    Args:
        reader: The run.
        content: Content of its report.

    Returns:
        Layers by row key.
    """
    drawn: dict[str, Picture] = {}
    # One category at a time, to bound memory: encoded images may be large.
    for detail in content.details:
        keys = {image.row_key for section in detail.gallery for image in section.images}
        drawn |= draw_rows(reader, detail.category, keys, detail.map_scale)
    return drawn


def _run_facts(reader: RunReader) -> RunFacts:
    manifest = reader.manifest
    plan = manifest.plan
    return RunFacts(
        location=reader.location.uri,
        run_id=manifest.run_id,
        code_version=plan.code_version,
        archive=plan.archive,
        archive_digest=plan.archive_digest,
        bundle_root=plan.bundle_root,
        options=plan.options.model_dump(mode="json"),
        images=manifest.images,
        errors=manifest.errors,
        called_anomalous=manifest.anomalous,
        random_weights=manifest.random_weights,
    )


def _category_result(
    manifest: RunManifest, every: ScoredImages, split: str | None, judged: ScoredImages | None
) -> CategoryResult:
    category = every.category
    counts, bundle = manifest.categories[category], manifest.plan.bundles[category]
    lineage, problem = _lineage(manifest, category)
    # Without an evaluated split, a fit may have seen the images.
    labelled = judged if split is not None else None
    return CategoryResult(
        category=category,
        images=counts.images,
        errors=counts.errors,
        called_anomalous=counts.anomalous,
        in_review=int(every.equals("decision", "review").sum()),
        split=split,
        threshold=None if judged is None else judged.threshold,
        normal_images=0 if labelled is None else int(labelled.normal.sum()),
        anomalous_images=0 if labelled is None else int(labelled.anomalous.sum()),
        false_alarms=0 if labelled is None else int(labelled.false_alarms.sum()),
        misses=0 if labelled is None else int(labelled.misses.sum()),
        bundle_version=bundle.version,
        bundle_digest=bundle.digest,
        lineage=lineage,
        lineage_problem=problem,
    )


def _lineage(manifest: RunManifest, category: str) -> tuple[Lineage | None, str | None]:
    """The origin of the bundle of a category, or the reason why it cannot be read."""
    planned = manifest.plan.bundles[category]
    try:
        bundle = BundleStore(manifest.plan.bundle_root).manifest(category, planned.version)
    except (BundleError, StoreError) as error:
        return None, f"The bundle cannot be read: {error}"
    if bundle.digest != planned.digest:
        return None, "The bundle was changed after the run: the digest of its manifest differs."
    config, calibration, origin = bundle.config, bundle.calibration, bundle.lineage
    return Lineage(
        created_at=bundle.created_at,
        code_version=bundle.code_version,
        profile=config.name,
        fusion_rule=config.chosen_fusion.rule,
        expert_weights=_expert_weights(manifest.plan, category, bundle),
        choices=_choices(calibration.selection),
        archive=origin["archive"]["uri"],
        archive_digest=origin["archive"]["digest"],
        fit_images=calibration.fit_images,
        held_out_images=calibration.held_out_images,
        calibration=calibration.method,
        false_positive_rate=calibration.threshold.false_positive_rate,
        threshold_method=calibration.threshold.method,
        networks=tuple(
            Network(
                name=name,
                uri=record["weights"]["uri"],
                sha256=record["weights"]["sha256"],
                trained=record["weights"]["trained"],
            )
            for name, record in sorted(origin["extractors"].items())
            if "weights" in record
        ),
    ), None


def _choices(selection: ExpertSelection | None) -> tuple[ExpertChoice, ...]:
    """Results of expert selection, by descending weight."""
    if selection is None:
        return ()
    ordered = sorted(selection.experts.items(), key=lambda entry: -entry[1].weight)
    return tuple(
        ExpertChoice(expert=name, weight=found.weight, reason=selection.reason(name), synthetic_auroc=found.auroc)
        for name, found in ordered
    )


def _expert_weights(plan: RunPlan, category: str, bundle: BundleManifest) -> dict[str, float]:
    if plan.options.experts is None:
        return bundle.fusion.expert_weights
    fusion, _ = BundleStore(plan.bundle_root).load(category, bundle.version).fusion(plan.options.experts)
    return fusion.expert_weights


def _category_detail(
    result: CategoryResult, images: ScoredImages, metrics: Sequence[Metric], per_section: int
) -> CategoryDetail:
    own = [entry for entry in metrics if entry.category == result.category]
    return CategoryDetail(
        category=result.category,
        histogram=score_histogram(images),
        curves=curves(images) if result.split is not None else None,
        experts=expert_contributions(images, own, result.lineage.expert_weights if result.lineage else None),
        map_scale=map_scale(images.scores, images.threshold),
        gallery=gallery(images, per_section),
    )


def _error_kinds(rows: pa.Table) -> dict[str, int]:
    kinds = rows.column("error_kind").drop_null().to_pylist()
    return dict(Counter(kinds).most_common())


def _listed_errors(rows: pa.Table) -> tuple[ImageErrorRow, ...]:
    failed = rows.filter(pc.equal(rows.column("status"), "error")).slice(0, MAX_LISTED_ERRORS)
    return tuple(
        ImageErrorRow(category=row["category"], source_uri=row["source_uri"], kind=row["error_kind"], text=row["error"])
        for row in failed.select(["category", "source_uri", "error_kind", "error"]).to_pylist()
    )
