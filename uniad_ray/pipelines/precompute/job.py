"""Precomputes an archive with Ray Data: runs all stages on each chunk, and writes the manifest last."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.compute as pc

from uniad_ray import __version__
from uniad_ray.archive.deletion import deletions_explained
from uniad_ray.archive.manifest import Chunk, choose_categories, chunks, read_manifest
from uniad_ray.archive.shards import read_table
from uniad_ray.archive.stores.lease import Lease, hold
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.value_range import category_config
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import SidecarError
from uniad_ray.pipelines.cluster.decoding import decoded_chunks
from uniad_ray.pipelines.cluster.session import ray_session, unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster, WorkerPlan, Workers, actors_reason, plan_actors
from uniad_ray.pipelines.precompute.worker import StageWorker
from uniad_ray.progress import Progress
from uniad_ray.scoring.bundles.published import PlannedBundle, published_bundles
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.sidecars.encoding import STAGES, Stage
from uniad_ray.sidecars.plan import (
    FILES_NAME,
    FORMAT_VERSION,
    LEASE_FOLDER,
    MANIFEST_NAME,
    CategoryPlan,
    SidecarFile,
    SidecarManifest,
    SidecarPlan,
    adopt_sidecar_plan,
    encode_files,
    file_path,
    read_sidecar,
    stage_schema,
)
from uniad_ray.sidecars.stages import CategoryPipeline

_logger = logging.getLogger(__name__)

_READ_THREADS = 16


class PrecomputeReport(StrictModel):
    """Result of a precomputation.

    Attributes:
        sidecar: Root of the sidecar.
        images: Number of image rows.
        errors: Number of images that could not be decoded.
        bytes: Total size of the files.
        fields: Names of the stored fields by category and stage.
        skipped_files: Files that an earlier call had already written.
    """

    sidecar: str
    images: int
    errors: int
    bytes: int
    fields: dict[str, dict[Stage, tuple[str, ...]]]
    skipped_files: int


def precompute(
    archive: str,
    out: str,
    config: FitConfig,
    *,
    bundles: str | None = None,
    stages: Sequence[Stage] | None = None,
    categories: Sequence[str] | None = None,
    workers: Mapping[Stage, Workers] | None = None,
    address: str | None = None,
) -> PrecomputeReport:
    """Computes the features that the experts of a configuration need, and stores them in a sidecar of the archive.

    An interrupted precomputation resumes when it is called again, and produces the same files as an uninterrupted one.
    One process at a time writes a sidecar.

    Args:
        archive: Root of the archive.
        out: Root of the sidecar; created if missing.
        config: The fit configuration; its frozen extractors run, trained ones are left out.
        bundles: Root of bundles. The published bundles replace `config`, and their trained extractors run as well.
        stages: Stages to store; default all with fields to store.
        categories: Categories to precompute; default all.
        workers: Workers of each stage; no row depends on them.
        address: Ray cluster to join; by default, Ray starts on this machine.

    Raises:
        ArchiveError: The archive cannot be read, or lacks a category.
        BundleError: A category has no published bundle, or its bundle is corrupt.
        LeaseError: Another process writes the sidecar.
        SidecarError: A stage cannot be stored, the sidecar was started with another plan, or rows are missing.
        ConfigError: An option of a component is invalid.
    """
    source, sidecar = Location.parse(archive), Location.parse(out)
    manifest = read_manifest(source)
    wanted = choose_categories(source, manifest, categories)
    work = list(chunks(manifest, categories=wanted))
    if not work:
        raise SidecarError(f"{source}: no images to precompute; check the archive with `uniad-ray inspect`")
    store = None if bundles is None else BundleStore(bundles)
    published = {} if store is None else published_bundles(store, wanted, source)
    with ray_session(address) as cluster:
        plan = SidecarPlan(
            format_version=FORMAT_VERSION,
            code_version=__version__,
            archive=source.uri,
            archive_digest=manifest.digest,
            bundle_root=None if store is None else store.root.uri,
            config=config if store is None else None,
            categories=_plan_categories(source, wanted, published, store, config, stages, cluster),
            chunks=len(work),
            images=sum(chunk.rows for chunk in work),
        )
        _check_stages(plan, stages)
        adopt_sidecar_plan(sidecar, plan)
        due = [(stage, chunk) for chunk in work for stage in plan.categories[chunk.category].fields]
        skipped = _complete(plan, sidecar, due, workers or {}, cluster)
    finished = read_sidecar(sidecar)
    return PrecomputeReport(
        sidecar=sidecar.uri,
        images=finished.images,
        errors=finished.errors,
        bytes=finished.bytes,
        fields={
            category: {stage: tuple(sorted(fields)) for stage, fields in planned.fields.items()}
            for category, planned in plan.categories.items()
        },
        skipped_files=skipped,
    )


def _plan_categories(
    archive: Location,
    categories: Sequence[str],
    published: Mapping[str, PlannedBundle],
    store: BundleStore | None,
    config: FitConfig,
    stages: Sequence[Stage] | None,
    cluster: Cluster,
) -> dict[str, CategoryPlan]:
    """Plans each category in a Ray task, which loads its networks."""
    import ray

    task = ray.remote(_plan_category).options(num_cpus=cluster.cpu_share, max_retries=2)
    references = [
        task.remote(archive, category, published.get(category), store, config, stages) for category in categories
    ]
    try:
        plans = ray.get(references)
    except Exception as error:
        raise unwrap(error) from error
    return dict(zip(categories, map(CategoryPlan.model_validate, plans), strict=True))


def _plan_category(
    archive: Location,
    category: str,
    published: PlannedBundle | None,
    store: BundleStore | None,
    config: FitConfig,
    stages: Sequence[Stage] | None,
) -> dict[str, Any]:
    """Loads the extractors of a category and chooses the fields to store, as a Ray task."""
    if published is None or store is None:
        sized = category_config(config, archive, read_manifest(archive), category)
        found = CategoryPipeline.unfitted(sized, device="cpu")
    else:
        found = CategoryPipeline.restored(store, category, published, device="cpu")
    return found.plan(stages, published).model_dump(mode="json")


def _check_stages(plan: SidecarPlan, stages: Sequence[Stage] | None) -> None:
    stored = {stage for planned in plan.categories.values() for stage in planned.fields}
    if unused := sorted(set(stages or ()) - stored):
        raise SidecarError(
            f"the experts use no {' and no '.join(unused)}; remove it from --stages, or use another expert_set"
        )
    if not stored:
        raise SidecarError("the experts use only features learned from normal images; fit first, then pass --bundles")


def _complete(
    plan: SidecarPlan,
    sidecar: Location,
    due: Sequence[tuple[Stage, Chunk]],
    workers: Mapping[Stage, Workers],
    cluster: Cluster,
) -> int:
    """Writes the files that are missing, and the manifest; returns the number of files that were there."""
    pending = _missing(sidecar, due)
    if pending or not (sidecar / MANIFEST_NAME).exists():
        with hold(sidecar / LEASE_FOLDER, f"the sidecar {sidecar}") as lease:
            # Its former holder may have written more, or finished it.
            pending = _missing(sidecar, due)
            if pending or not (sidecar / MANIFEST_NAME).exists():
                step = "to precompute the images that are left, use a new --out"
                with deletions_explained(Location.parse(plan.archive), {chunk for _, chunk in pending}, step):
                    written = _precompute_pending(plan, sidecar, pending, workers, cluster, lease) if pending else {}
                lease.check()
                _finish(sidecar, plan, due, written)
    return len(due) - len(pending)


def _missing(sidecar: Location, due: Sequence[tuple[Stage, Chunk]]) -> list[tuple[Stage, Chunk]]:
    present = {info.relative for info in sidecar.list(suffix=".parquet")}
    return [(stage, chunk) for stage, chunk in due if file_path(stage, chunk.name) not in present]


def _precompute_pending(
    plan: SidecarPlan,
    sidecar: Location,
    pending: Sequence[tuple[Stage, Chunk]],
    workers: Mapping[Stage, Workers],
    cluster: Cluster,
    lease: Lease,
) -> dict[str, SidecarFile]:
    """Writes the pending files, and returns the written ones by path."""
    work = list(dict.fromkeys(chunk for _, chunk in pending))
    stages = [stage for stage in STAGES if any(stage == own for own, _ in pending)]
    wanted = {stage: workers.get(stage, Workers()) for stage in stages}
    pools = plan_actors(wanted, cluster)
    for stage, pool in pools.items():
        _logger.info("%s with %s", stage, actors_reason(pool, wanted[stage], cluster, len(pools)))
    dataset = _dataset(plan, sidecar, work, pools, cluster, lease)
    written: dict[str, SidecarFile] = {}
    with Progress("precomputing", plan.images) as progress:
        progress.advance(plan.images - sum(chunk.rows for chunk in work))
        try:
            for row in dataset.iter_rows():
                files = [SidecarFile(**document) for document in json.loads(row["files"])]
                written |= {file_path(file.stage, file.chunk): file for file in files}
                progress.advance(int(row["row_count"]))
        except Exception as error:
            raise unwrap(error) from error
    return written


def _dataset(
    plan: SidecarPlan,
    sidecar: Location,
    work: Sequence[Chunk],
    pools: Mapping[Stage, WorkerPlan],
    cluster: Cluster,
    lease: Lease,
) -> Any:
    import ray

    image_sizes = {category: planned.image_size for category, planned in plan.categories.items()}
    value_ranges = {category: planned.value_range for category, planned in plan.categories.items()}
    actors = sum(pool.count for pool in pools.values())
    dataset = decoded_chunks(plan.archive, work, image_sizes, actors, cluster, value_ranges)
    document = plan.model_dump(mode="json", by_alias=True)
    for stage, pool in pools.items():
        dataset = dataset.map_batches(
            StageWorker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(**pool.pool),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            fn_constructor_args=(stage, document, sidecar.uri),
            fn_constructor_kwargs={
                "is_last": stage == list(pools)[-1],
                "device": pool.device,
                "threads": pool.threads,
                "lease": lease,
            },
        )
    return dataset


def _finish(
    sidecar: Location, plan: SidecarPlan, due: Sequence[tuple[Stage, Chunk]], written: Mapping[str, SidecarFile]
) -> None:
    """Checks that every image has a row, lists all files, and writes the manifest."""

    def find(entry: tuple[Stage, Chunk]) -> SidecarFile:
        path = file_path(entry[0], entry[1].name)
        return written.get(path) or _read_file(sidecar / path, *entry)

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        files = list(pool.map(find, due))
    for file, (_, chunk) in zip(files, due, strict=True):
        if file.rows != chunk.rows:
            location = sidecar / file_path(file.stage, file.chunk)
            raise SidecarError(
                f"{location}: {file.rows} rows for {chunk.rows} images; delete the file and run the same command again"
            )
    data, digest = encode_files(files)
    (sidecar / FILES_NAME).write_bytes(data)
    finished = SidecarManifest(
        plan=plan,
        images=plan.images,
        errors=sum({file.chunk: file.errors for file in files}.values()),
        bytes=sum(file.bytes for file in files),
        files_sha256=digest,
    )
    (sidecar / MANIFEST_NAME).write_json(finished.model_dump(mode="json", by_alias=True))


def _read_file(location: Location, stage: Stage, chunk: Chunk) -> SidecarFile:
    """Reads the counts and the digest of a file that an earlier call wrote."""
    data = location.read_bytes()
    status = read_table(stage_schema(stage), location, columns=["status"]).column("status")
    return SidecarFile(
        stage=stage,
        chunk=chunk.name,
        category=chunk.category,
        rows=len(status),
        errors=pc.sum(pc.equal(status, "error")).as_py() or 0,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
