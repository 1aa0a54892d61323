"""The steps of a night. Each may be killed and repeated: it then gives the same record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import pyarrow.compute as pc

from uniad_ray.alarms.rules import raise_alarms
from uniad_ray.archive.deletion import finish_deletions
from uniad_ray.archive.ingest.moves import Moves, is_compacted, present_shards
from uniad_ray.archive.manifest import MANIFEST_NAME, ArchiveManifest, Shard, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import read_table
from uniad_ray.archive.stores.lease import hold
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError, StoreError
from uniad_ray.evaluation.run import METRICS_PATH
from uniad_ray.metrics.metric import ALL, MEAN_OF_CATEGORIES
from uniad_ray.nights.config import NightlyConfig, NightSource
from uniad_ray.nights.folder import Night, read_watermark, write_watermark
from uniad_ray.nights.model import (
    Begun,
    Captioned,
    Drifted,
    Evaluated,
    Ingested,
    NightCounts,
    NightSummary,
    Scored,
    Watermark,
)
from uniad_ray.pipelines.cluster.sizing import Workers
from uniad_ray.pipelines.evaluate import SharedCounter
from uniad_ray.pipelines.ingest.job import ingest as ingest_source
from uniad_ray.pipelines.score.job import score as score_archive
from uniad_ray.reporting.build import report as report_run
from uniad_ray.runs.plan import LEASE_FOLDER, PLAN_NAME, ScoreOptions, make_plan, plan_differences, read_plan
from uniad_ray.runs.plan import MANIFEST_NAME as RUN_MANIFEST
from uniad_ray.runs.reviews import FOLDER as MARKS
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.sidecars.captions import MANIFEST_NAME as SIDECAR_MANIFEST

RESAMPLES: Final = 200
"""Bootstrap resamples of the report; `uniad-ray report` of the run can use more."""


def begin(config: NightlyConfig, night: Night, started_at: str) -> Begun:
    """Notes what was there before: rejected files, and before the first night, the shards of the archive."""
    manifest = _manifest(config)
    if read_watermark(night.work) is None:
        there = () if config.first_night == "all" else tuple(shard.path for shard in _shards(manifest))
        write_watermark(night.work, Watermark(shards=there))
    rejected = () if manifest is None else tuple(sorted({entry.source_uri for entry in manifest.rejected}))
    return Begun(night=night.name, started_at=started_at, rejected_before=rejected)


def ingest(config: NightlyConfig, night: Night, begun: Begun) -> Ingested:
    """Ingests the sources, and finds the shards that no night has scored.

    All counts follow from the archive before and after, so that they do not depend on how often the step was killed.
    """
    finish_deletions(Location.parse(config.archive))
    warnings: list[str] = []
    failed: dict[str, str] = {}
    for source in config.sources:
        try:
            warnings += _ingest_source(config, source)
        except (ArchiveError, StoreError) as error:
            # The other sources go on, and an alarm names this one.
            failed[source.path] = str(error)
    manifest = _manifest(config)
    done = read_watermark(night.work)
    known = set(done.shards) if done else set()
    new = [shard for shard in _shards(manifest) if shard.path not in known]
    if any(is_compacted(shard.path) for shard in new):
        moves = Moves.read(Location.parse(config.archive))
        # Shards that a compaction has joined after they were scored are not new.
        new = [shard for shard in new if not moves.is_from(shard.path, known)]
    store = BundleStore(config.bundles)
    without = {category for category in {shard.category for shard in new} if store.pointer(category) is None}
    rejected = set() if manifest is None else {entry.source_uri for entry in manifest.rejected}
    return Ingested(
        shards=tuple(shard.path for shard in new if shard.category not in without),
        waiting={
            category: sum(shard.rows for shard in new if shard.category == category) for category in sorted(without)
        },
        rejected_files=len(rejected - set(begun.rejected_before)),
        failed_sources=failed,
        warnings=tuple(warnings),
    )


def _ingest_source(config: NightlyConfig, source: NightSource) -> tuple[str, ...]:
    """Ingests one source, and returns the warnings.

    Raises:
        ArchiveError: The source has no files or no images, or the archive is corrupt.
        StoreError: The source cannot be read.
    """
    if not Location.parse(source.path).has_children():
        raise ArchiveError(f"{source.path}: no files there; check the path and the mount")
    return ingest_source(
        source.path,
        config.archive,
        category=source.category,
        layout=source.layout,
        manifest=source.manifest,
        split=source.split,
        label=source.label,
        address=config.address,
    ).warnings


def score(config: NightlyConfig, night: Night, ingested: Ingested) -> Scored:
    """Scores the new shards that were not deleted since.

    If a compaction has moved them into others meanwhile, these are scored with the images of other nights in them.

    A run of other bundles is started again, because nobody has seen it without a record.
    """
    manifest = _manifest(config)
    shards = () if manifest is None else present_shards(Location.parse(config.archive), manifest, ingested.shards)
    if not shards:
        return Scored()
    options = ScoreOptions(
        shards=shards,
        maps=config.score.maps,
        top_maps=config.score.top_maps,
        false_positive_rate=config.score.false_positive_rate,
    )
    _discard_other_plan(config, night, options)
    scored = score_archive(
        config.archive,
        config.bundles,
        night.run.uri,
        options=options,
        workers=Workers(config.score.workers, config.score.threads, config.score.device),
        address=config.address,
    )
    bundles = read_plan(night.run).bundles
    return Scored(
        run=night.run.uri,
        run_id=scored.run_id,
        notes=scored.notes,
        categories={
            name: NightCounts(
                images=counts.images,
                errors=counts.errors,
                anomalous=counts.anomalous,
                in_review=counts.in_review,
                bundle_version=bundles[name].version,
            )
            for name, counts in scored.categories.items()
        },
    )


def _discard_other_plan(config: NightlyConfig, night: Night, options: ScoreOptions) -> None:
    if not (night.run / PLAN_NAME).exists():
        return
    archive = Location.parse(config.archive)
    plan, _ = make_plan(archive, read_manifest(archive), BundleStore(config.bundles), options)
    if plan_differences(read_plan(night.run), plan):
        with hold(night.run / LEASE_FOLDER, f"the run {night.run}"):
            # The plan goes last: killed in between, the next call must not take old rows for those of the new plan.
            (night.run / RUN_MANIFEST).delete()
            (night.run / "scores").delete_tree()
            night.run.delete_tree()


def advance(night: Night, ingested: Ingested) -> None:
    """Adds the scored shards of a night to the watermark."""
    before = read_watermark(night.work)
    done = set(before.shards) if before else set()
    if not done.issuperset(ingested.shards):
        write_watermark(night.work, Watermark(shards=tuple(sorted(done | set(ingested.shards)))))


def evaluate(config: NightlyConfig, night: Night, scored: Scored) -> Evaluated:
    """Evaluates and reports the run of a night, with the reviewers' marks that it has now."""
    if scored.run is None:
        return Evaluated()
    marks = marks_digest(night)
    with SharedCounter(address=config.address) as counter:
        captions = _finished_sidecar(config)
        written = report_run(scored.run, resamples=RESAMPLES, captions=captions, counter=counter)
    table = read_table(dataset_schema("metric"), night.run / METRICS_PATH)
    wanted = pc.and_(pc.equal(table.column("metric"), "image_auroc"), pc.equal(table.column("group"), ALL))
    rows = table.filter(pc.and_(wanted, pc.is_null(table.column("expert")))).to_pylist()
    return Evaluated(
        report=written.path,
        marks=marks,
        image_auroc={
            row["category"]: row["value"]
            for row in rows
            if row["value"] is not None and row["category"] != MEAN_OF_CATEGORIES
        },
    )


def _finished_sidecar(config: NightlyConfig) -> str | None:
    """The sidecar of the nights, for the report; None if there is none yet."""
    if config.captions is None or not (Location.parse(config.captions.sidecar) / SIDECAR_MANIFEST).exists():
        return None
    return config.captions.sidecar


def marks_digest(night: Night) -> str:
    """Digest of the files of marks of a run; files of marks never change. Empty without marks."""
    names = [info.relative for info in (night.run / MARKS).list(suffix=".parquet")]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] if names else ""


def summarise(
    config: NightlyConfig,
    begun: Begun,
    ingested: Ingested,
    captioned: Captioned | None,
    scored: Scored,
    drifted: Drifted,
) -> NightSummary:
    """The night in the history, with its alarms."""
    counts: Mapping[str, NightCounts] = scored.categories
    return NightSummary(
        night=begun.night,
        started_at=begun.started_at,
        run_id=scored.run_id,
        images=sum(entry.images for entry in counts.values()),
        errors=sum(entry.errors for entry in counts.values()),
        anomalous=sum(entry.anomalous for entry in counts.values()),
        in_review=sum(entry.in_review for entry in counts.values()),
        rejected_files=ingested.rejected_files,
        waiting=ingested.waiting,
        captions=captioned,
        categories=dict(counts),
        medians=drifted.medians,
        findings=drifted.findings,
        alarms=raise_alarms(
            config.alarms,
            categories=counts,
            waiting=ingested.waiting,
            rejected_files=ingested.rejected_files,
            failed_sources=ingested.failed_sources,
            captions=_without_captions(captioned),
            findings=drifted.findings,
        ),
        notes=(*ingested.warnings, *_caption_notes(captioned), *scored.notes, *drifted.notes),
    )


def _without_captions(captioned: Captioned | None) -> str | None:
    """Why the night has no captions, in words; None if the model was reached."""
    if captioned is None or captioned.failure is None:
        return None
    return (
        f"the night went on without the caption model; {captioned.captioned} of {captioned.images} new images have a "
        f"caption: {captioned.failure}"
    )


def _caption_notes(captioned: Captioned | None) -> tuple[str, ...]:
    if captioned is None or captioned.failure is not None or not captioned.errors:
        return ()
    kinds = ", ".join(f"{kind}: {count}" for kind, count in captioned.errors.items())
    return (f"{sum(captioned.errors.values())} of {captioned.images} new images have no caption ({kinds})",)


def _manifest(config: NightlyConfig) -> ArchiveManifest | None:
    """The manifest of the archive; None if there is no archive yet."""
    archive = Location.parse(config.archive)
    return read_manifest(archive) if (archive / MANIFEST_NAME).exists() else None


def _shards(manifest: ArchiveManifest | None) -> tuple[Shard, ...]:
    return () if manifest is None else manifest.shards
