"""Scores an archive with Ray Data: commits chunk by chunk, and writes the manifest once every image has a row."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from uniad_ray.archive.deletion import deletions_explained
from uniad_ray.archive.manifest import Chunk, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.archive.stores.lease import Lease, hold
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import RunError
from uniad_ray.pipelines.cluster.decoding import decoded_chunks
from uniad_ray.pipelines.cluster.metrics import RayMetrics, Recorder
from uniad_ray.pipelines.cluster.session import ray_session, unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster, WorkerPlan, Workers, actors_reason, plan_actors
from uniad_ray.pipelines.score.attempts import RemoteAttempts
from uniad_ray.pipelines.score.worker import ChunkScorer
from uniad_ray.progress import Progress
from uniad_ray.runs.chunks import finished_chunks
from uniad_ray.runs.maps import StoredMap, highest, read_maps, write_maps
from uniad_ray.runs.parts import read_parts, write_parts
from uniad_ray.runs.plan import (
    CHUNKS_NAME,
    LEASE_FOLDER,
    MANIFEST_NAME,
    MAP_CANDIDATES,
    CategoryCounts,
    RunChunk,
    RunManifest,
    RunPlan,
    ScoreOptions,
    adopt_plan,
    make_plan,
    map_candidates_path,
    read_run,
    scores_path,
    top_maps_path,
)
from uniad_ray.runs.timings import StageSeconds, Timing, read_timings, write_timing
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.sidecars.reader import note_recomputed, open_sidecar

_logger = logging.getLogger(__name__)


class ScoreReport(StrictModel):
    """Result of a scoring run.

    Attributes:
        run: Root of the run.
        run_id: Digest of its plan.
        images: Number of score rows.
        errors: Number of rows with status `error`.
        anomalous: Number of rows with decision `anomalous`.
        in_review: Number of rows with decision `review`.
        categories: The same counts by category.
        skipped_chunks: Chunks that an earlier call had already scored.
        seconds: Time spent in this call, by stage.
        store_retries: Requests to the store that workers repeated in this call.
        parts: Number of parts, which are images with the same serial.
        anomalous_parts: Number of parts with an anomalous view.
        notes: What the options leave without effect.
        undecided_parts: Number of other parts with a view that could not be scored.
    """

    run: str
    run_id: str
    images: int
    errors: int
    anomalous: int
    categories: dict[str, CategoryCounts]
    skipped_chunks: int
    seconds: StageSeconds
    store_retries: int = 0
    in_review: int = 0
    parts: int = 0
    anomalous_parts: int = 0
    undecided_parts: int = 0
    notes: tuple[str, ...] = ()


def score(
    archive: str,
    bundles: str,
    out: str,
    *,
    options: ScoreOptions | None = None,
    sidecar: str | None = None,
    workers: Workers | None = None,
    address: str | None = None,
) -> ScoreReport:
    """Scores every image row of an archive with the published bundles.

    An interrupted run resumes when it is called again, and produces the same rows as an uninterrupted one. One process
    at a time works on a run.

    Args:
        archive: Root of the archive.
        bundles: Root of the bundles.
        out: Root of the run; created if missing.
        options: Options that determine the content of the run.
        sidecar: Root of a sidecar of the archive. Its matching features are reused; the scores do not depend on it.
        workers: Workers to use; no score depends on them.
        address: Ray cluster to join; by default, Ray starts on this machine.

    Raises:
        ArchiveError: The archive cannot be read, or images were deleted before they were scored.
        BundleError: A category has no published bundle, or its bundle is corrupt.
        LeaseError: Another process works on the run.
        RunError: The run was started with another plan, or rows are missing at the end.
        SidecarError: The sidecar is missing, unfinished, corrupt, or belongs to another archive.
    """
    source, run = Location.parse(archive), Location.parse(out)
    store = BundleStore(bundles)
    plan, work = make_plan(source, read_manifest(source), store, options or ScoreOptions())
    if sidecar is not None:
        sidecar = Location.parse(sidecar).uri
        open_sidecar(sidecar, plan.archive_digest).note_missing(plan.bundles)
    adopt_plan(run, plan)
    notes = _review_notes(plan, store)
    for note in notes:
        _logger.warning("%s", note)
    if (run / MANIFEST_NAME).exists():
        return _report_finished(run, work, notes)
    with hold(run / LEASE_FOLDER, f"the run {run}") as lease:
        # Its former holder may have finished the run, or discarded its plan.
        adopt_plan(run, plan)
        if (run / MANIFEST_NAME).exists():
            return _report_finished(run, work, notes)
        finished = finished_chunks(run, work, plan.run_id)
        present = {result.chunk for result in finished}
        pending = [chunk for chunk in work if chunk.name not in present]
        timing = None
        if pending:
            step = f"the rows that are scored stay in {run}; to score the images that are left, use a new --out"
            with deletions_explained(source, pending, step):
                scored, timing = _score_pending(
                    plan, run, pending, finished, sidecar, workers or Workers(), address, lease=lease
                )
            write_timing(run, timing)
            finished += scored
        lease.check()
        manifest = _finish(run, plan, work, finished)
    return _report(run, manifest, len(work) - len(pending), timing, notes)


def _review_notes(plan: RunPlan, store: BundleStore) -> tuple[str, ...]:
    """Categories whose review threshold has no effect, because the run asks for more false alarms than for review."""
    rate = plan.options.false_positive_rate
    found = []
    if rate is None:
        return ()
    for category, bundle in plan.bundles.items():
        review = store.manifest(category, bundle.version).calibration.review
        if review is not None and review.false_positive_rate <= rate:
            found.append(
                f"{category}: no image is for review: the run asks for {100 * rate:g} % false alarms, and the bundle "
                f"reviews {100 * review.false_positive_rate:g} % of normal images; ask for fewer, or publish another "
                f"rate with `uniad-ray threshold {store.root} {category} --review-rate RATE`"
            )
    return tuple(found)


def _score_pending(
    plan: RunPlan,
    run: Location,
    pending: list[Chunk],
    finished: list[RunChunk],
    sidecar: str | None,
    workers: Workers,
    address: str | None,
    *,
    lease: Lease,
) -> tuple[list[RunChunk], Timing]:
    store = BundleStore(plan.bundle_root)
    configs = {category: store.manifest(category, bundle.version).config for category, bundle in plan.bundles.items()}
    results: list[RunChunk] = []
    recomputed: dict[str, set[str]] = {}
    retries = 0
    spent = {"decode": 0.0, "score": 0.0, "write": 0.0}
    with ray_session(address) as cluster:
        chosen = plan_actors({"scoring": workers}, cluster)["scoring"]
        batches = sorted({config.batch_size for config in configs.values()})
        _logger.info(
            "scoring with %s; batches of %s images, as in the fit, and of one chunk at most",
            actors_reason(chosen, workers, cluster),
            " or ".join(map(str, batches)),
        )
        dataset = _dataset(plan, run, pending, configs, sidecar, chosen, cluster, lease)
        metrics = RayMetrics()
        metrics.set("uniad_ray_run_chunks_waiting", len(pending))
        started_at, started = datetime.now(UTC), time.perf_counter()
        with Progress("scoring", plan.images) as progress:
            progress.advance(sum(result.rows for result in finished), sum(result.errors for result in finished))
            try:
                for row in dataset.iter_rows():
                    results.append(RunChunk(**{name: row[name] for name in RunChunk.__dataclass_fields__}))
                    progress.advance(int(row["rows"]), int(row["errors"]))
                    record_chunk(metrics, row, len(pending) - len(results))
                    recomputed.setdefault(row["category"], set()).update(json.loads(row["recomputed"]))
                    retries += int(row["store_retries"])
                    for stage in spent:
                        spent[stage] += float(row[f"{stage}_seconds"])
            except Exception as error:
                raise unwrap(error) from error
    for category, fields in sorted(recomputed.items()):
        note_recomputed(category, fields)
    timing = Timing(
        started_at=started_at.isoformat(),
        images=sum(result.rows for result in results),
        chunks=len(results),
        workers=chosen.count,
        threads=chosen.threads,
        device=chosen.device,
        seconds=StageSeconds(**spent, wall=time.perf_counter() - started),
        store_retries=retries,
    )
    return results, timing


def record_chunk(metrics: Recorder, row: Mapping[str, Any], waiting: int) -> None:
    """Records a scored chunk.

    Args:
        metrics: Where to record it.
        row: The row that `ChunkScorer` returned.
        waiting: Number of chunks that are not scored yet.
    """
    category = str(row["category"])
    rows, errors, anomalous = int(row["rows"]), int(row["errors"]), int(row["anomalous"])
    in_review = int(row["in_review"])
    normal = rows - errors - anomalous - in_review
    decisions = {"normal": normal, "review": in_review, "anomalous": anomalous, "error": errors}
    for decision, images in decisions.items():
        metrics.count("uniad_ray_run_images", images, category=category, decision=decision)
    for stage in ("decode", "score", "write"):
        metrics.count("uniad_ray_run_stage_seconds", float(row[f"{stage}_seconds"]), category=category, stage=stage)
    metrics.count("uniad_ray_run_store_retries", int(row["store_retries"]))
    metrics.set("uniad_ray_run_chunks_waiting", waiting)


def _dataset(
    plan: RunPlan,
    run: Location,
    pending: list[Chunk],
    configs: Mapping[str, FitConfig],
    sidecar: str | None,
    workers: WorkerPlan,
    cluster: Cluster,
    lease: Lease,
) -> Any:
    import ray

    image_sizes = {category: config.decoded_size for category, config in configs.items()}
    value_ranges = {category: config.value_range for category, config in configs.items()}
    dataset = decoded_chunks(plan.archive, pending, image_sizes, workers.count, cluster, value_ranges)
    return dataset.map_batches(
        ChunkScorer,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(**workers.pool),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
        fn_constructor_args=(plan.model_dump(mode="json"), run.uri),
        fn_constructor_kwargs={
            "sidecar": sidecar,
            "device": workers.device,
            "threads": workers.threads,
            "lease": lease,
            "attempts": RemoteAttempts.start(),
        },
    )


def _finish(run: Location, plan: RunPlan, work: list[Chunk], results: list[RunChunk]) -> RunManifest:
    """Checks that every image has a row, keeps the highest-scoring maps, and writes the manifest."""
    by_name = {result.chunk: result for result in results}
    wrong = [chunk.name for chunk in work if chunk.name not in by_name or by_name[chunk.name].rows != chunk.rows]
    if wrong:
        raise RunError(
            f"{run}: {len(wrong)} chunks have no scores or a wrong number of rows, first {wrong[0]}; "
            "run the same command again"
        )
    ordered = [by_name[chunk.name] for chunk in work]
    if plan.options.maps == "top":
        _keep_top_maps(run, plan, ordered)
    schema = dataset_schema("run_chunk")
    names = RunChunk.__dataclass_fields__
    data = encode_table(schema, schema.table({name: [getattr(item, name) for item in ordered] for name in names}))
    (run / CHUNKS_NAME).write_bytes(data)
    write_parts(run, [scores_path(item.chunk) for item in ordered])
    store = BundleStore(plan.bundle_root)
    weights = {
        category: store.manifest(category, bundle.version).lineage["extractors"]
        for category, bundle in plan.bundles.items()
    }
    manifest = RunManifest(
        run_id=plan.run_id,
        plan=plan,
        images=sum(item.rows for item in ordered),
        errors=sum(item.errors for item in ordered),
        anomalous=sum(item.anomalous for item in ordered),
        in_review=sum(item.in_review for item in ordered),
        categories=_count_by_category(ordered),
        chunks_sha256=hashlib.sha256(data).hexdigest(),
        weights=weights,
        random_weights=any(
            not record["weights"]["trained"]
            for networks in weights.values()
            for record in networks.values()
            if "weights" in record
        ),
        store_retries=sum(timing.store_retries for timing in read_timings(run)),
    )
    (run / MANIFEST_NAME).write_json(manifest.model_dump(mode="json"))
    (run / MAP_CANDIDATES).delete_tree()
    return manifest


def _report_finished(run: Location, work: Sequence[Chunk], notes: tuple[str, ...] = ()) -> ScoreReport:
    manifest = read_run(run)
    if manifest.plan.options.maps == "top" and (run / MAP_CANDIDATES).has_children():
        # Killed between the manifest and this.
        (run / MAP_CANDIDATES).delete_tree()
    return _report(run, manifest, len(work), None, notes)


def _keep_top_maps(run: Location, plan: RunPlan, results: list[RunChunk]) -> None:
    for category in plan.bundles:
        best: list[StoredMap] = []
        for result in results:
            if result.category == category:
                candidates = read_maps(run / map_candidates_path(result.chunk))
                best = highest([*best, *candidates], plan.options.top_maps)
        if best:
            name = next(result.chunk for result in results if result.category == category).split("/")[0]
            write_maps(run / top_maps_path(name), best)


def _count_by_category(results: Iterable[RunChunk]) -> dict[str, CategoryCounts]:
    totals: dict[str, list[int]] = {}
    for result in results:
        total = totals.setdefault(result.category, [0, 0, 0, 0])
        for index, value in enumerate((result.rows, result.errors, result.anomalous, result.in_review)):
            total[index] += value
    return {
        name: CategoryCounts(images=images, errors=errors, anomalous=anomalous, in_review=in_review)
        for name, (images, errors, anomalous, in_review) in sorted(totals.items())
    }


def _report(
    run: Location, manifest: RunManifest, skipped: int, timing: Timing | None, notes: tuple[str, ...]
) -> ScoreReport:
    decisions = Counter(part.decision for part in read_parts(run))
    return ScoreReport(
        run=run.uri,
        run_id=manifest.run_id,
        images=manifest.images,
        errors=manifest.errors,
        anomalous=manifest.anomalous,
        in_review=manifest.in_review,
        categories=manifest.categories,
        skipped_chunks=skipped,
        parts=decisions.total(),
        anomalous_parts=decisions["anomalous"],
        undecided_parts=decisions[None],
        seconds=StageSeconds() if timing is None else timing.seconds,
        store_retries=0 if timing is None else timing.store_retries,
        notes=notes,
    )
