"""Ingests a source of images into an archive of Parquet shards with a resumable Ray Data job."""

from __future__ import annotations

import functools
import logging
from typing import Any

from pydantic import Field, ValidationError

from uniad_ray.archive.images import ImageLimits
from uniad_ray.archive.ingest import IngestPlan, ShardRecord, build_shard, plan_ingest, read_planned_shard
from uniad_ray.archive.layouts import Label, Source, Split, open_source
from uniad_ray.archive.manifest import MANIFEST_NAME, ArchiveManifest, RejectedFile, Shard, build_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import ShardLimits, open_parquet
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError
from uniad_ray.pipelines.cluster.session import configure_ray_data, ray_session, unwrap
from uniad_ray.progress import Progress

_logger = logging.getLogger(__name__)


class IngestRecord(StrictModel):
    """Record of one ingest of one source, written last; its presence means that the ingest is complete."""

    ingest_id: str
    source: str
    shards: tuple[Shard, ...]
    rejected: tuple[RejectedFile, ...]
    defects: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)


class IngestReport(StrictModel):
    """Result of an ingest.

    Attributes:
        archive: URI of the archive.
        ingest_id: Identifier of this ingest.
        new_images: Rows added by this ingest.
        skipped_shards: Shards that an earlier call had already built.
        rejected: Files of this source that were rejected, with the reason.
        images: Rows of the whole archive.
        digest: Digest of the whole archive.
    """

    archive: str
    ingest_id: str
    new_images: int
    skipped_shards: int
    rejected: tuple[RejectedFile, ...]
    images: int
    digest: str


def ingest(
    source: str,
    archive: str,
    *,
    category: str | None = None,
    layout: str = "auto",
    split: Split | None = None,
    label: Label | None = None,
    limits: ShardLimits | None = None,
    address: str | None = None,
) -> IngestReport:
    """Adds the images of a source to an archive.

    An interrupted ingest resumes when it is called again, and produces the same bytes as an uninterrupted one. A
    repeated ingest adds only the new images of the source.

    Args:
        source: Folder or S3 prefix, in a layout of docs/layouts.md or with plain images.
        archive: Folder or S3 prefix of the archive; created if missing.
        category: Category to take, or its name if the source has none.
        layout: One of `LAYOUT_NAMES`; `auto` detects it.
        split: Split of a plain folder; default `archive`.
        label: Label of a plain folder; default unknown.
        limits: Maximum sizes of shards and row groups.
        address: Ray cluster to join; by default, Ray starts on this machine.

    Raises:
        ArchiveError: The source is empty, or the archive is corrupt.
        StoreError: A store cannot be read or written.
    """
    root, target = Location.parse(source), Location.parse(archive)
    bounds = limits or ShardLimits()
    opened = open_source(root, layout=layout, category=category, split=split, label=label)
    _logger.info("%s: read as layout %s", root, opened.layout.name)
    plan = plan_ingest(opened.entries(), limits=bounds, known_rows=_known_rows(target))
    folder = target / "_ingest" / plan.ingest_id
    skipped = 0
    if plan.shards:
        (folder / "plan.parquet").write_bytes(plan.data)
        skipped = _run(plan, opened, folder, target, bounds, address)
    record = _finish(plan, opened, folder)
    manifest = rebuild_manifest(target)
    return IngestReport(
        archive=target.uri,
        ingest_id=plan.ingest_id,
        new_images=sum(shard.rows for shard in record.shards),
        skipped_shards=skipped,
        rejected=record.rejected,
        images=manifest.images,
        digest=manifest.digest,
    )


def rebuild_manifest(archive: Location) -> ArchiveManifest:
    """Builds the manifest of an archive from all finished ingests, and writes it.

    Two ingests that end at the same time both rebuild it. The listing is repeated until it no longer changes; the last
    writer then includes both.
    """
    while True:
        records = _finished_ingests(archive)
        defects: dict[str, Any] = {}
        for record in records:
            defects.update(record.defects)
        manifest = build_manifest(
            schema_version=dataset_schema("image").version,
            shards=[shard for record in records for shard in record.shards],
            rejected=[entry for record in records for entry in record.rejected],
            defects=defects,
            ingests=[record.ingest_id for record in records],
        )
        (archive / MANIFEST_NAME).write_json(manifest.model_dump(mode="json"))
        if {record.ingest_id for record in _finished_ingests(archive)} == set(manifest.ingests):
            return manifest


def _run(
    plan: IngestPlan, source: Source, folder: Location, archive: Location, limits: ShardLimits, address: str | None
) -> int:
    """Builds the planned shards that are missing, and returns the number of existing ones."""
    done = {info.relative for info in (folder / "shards").list(suffix=".json")}
    pending = [index for index in range(len(plan.shards)) if _record_name(index) not in done]
    if not pending:
        return len(plan.shards)
    with ray_session(address) as cluster:
        import ray

        configure_ray_data()
        work = functools.partial(
            _build_planned_shard,
            folder=folder.uri,
            archive=archive.uri,
            defects=source.defects,
            limits=limits,
        )
        dataset = ray.data.from_items([{"row_group": index} for index in pending], override_num_blocks=len(pending))
        dataset = dataset.map(work, num_cpus=cluster.cpu_share)
        with Progress("ingesting", plan.images) as progress:
            for index in set(range(len(plan.shards))) - set(pending):
                shard = _read_record(folder, index)
                progress.advance((shard.shard.rows if shard.shard else 0) + len(shard.rejected), len(shard.rejected))
            try:
                for summary in dataset.iter_rows():
                    progress.advance(int(summary["images"]) + int(summary["rejected"]), int(summary["rejected"]))
            except Exception as error:
                raise unwrap(error) from error
    return len(plan.shards) - len(pending)


def _build_planned_shard(
    row: dict[str, Any], *, folder: str, archive: str, defects: dict[str, Any], limits: ShardLimits
) -> dict[str, Any]:
    """Writes one shard and then its record, as a Ray task."""
    index = int(row["row_group"])
    target = Location.parse(folder)
    planned = read_planned_shard(target / "plan.parquet", index)
    data, record = build_shard(
        planned,
        defects=defects.get(planned[0]["category"]),
        image_limits=ImageLimits(),
        shard_limits=limits,
    )
    if data is not None and record.shard is not None:
        (Location.parse(archive) / record.shard.path).write_bytes(data)
    (target / "shards" / _record_name(index)).write_json(record.model_dump(mode="json"))
    return {"images": record.shard.rows if record.shard else 0, "rejected": len(record.rejected)}


def _finish(plan: IngestPlan, source: Source, folder: Location) -> IngestRecord:
    records = [_read_record(folder, index) for index in range(len(plan.shards))]
    rejected = [RejectedFile(source_uri=entry.source_uri, reason=entry.reason) for entry in plan.rejected]
    rejected += [entry for record in records for entry in record.rejected]
    finished = IngestRecord(
        ingest_id=plan.ingest_id,
        source=source.root.uri,
        shards=tuple(record.shard for record in records if record.shard),
        rejected=tuple(rejected),
        defects={name: content for name, content in source.defects.items() if content},
    )
    if plan.shards or plan.rejected:
        (folder / "ingest.json").write_json(finished.model_dump(mode="json"))
    return finished


def _finished_ingests(archive: Location) -> list[IngestRecord]:
    records = []
    for info in (archive / "_ingest").list(suffix="/ingest.json"):
        try:
            records.append(IngestRecord.model_validate(info.location.read_json()))
        except ValidationError as error:
            raise ArchiveError(f"{info.location}: corrupt record of an ingest; delete it and ingest again") from error
    return records


def _known_rows(archive: Location) -> dict[str, int]:
    """Returns the source bytes by row key of all images in finished ingests."""
    known: dict[str, int] = {}
    for record in _finished_ingests(archive):
        refused = {entry.source_uri for entry in record.rejected}
        plan = archive / "_ingest" / record.ingest_id / "plan.parquet"
        if not record.shards:
            continue
        with open_parquet(plan) as file:
            columns = file.read(columns=["row_key", "source_uri", "source_bytes"])
        rows = zip(*(column.to_pylist() for column in columns.columns), strict=True)
        known.update({key: size for key, uri, size in rows if uri not in refused})
    return known


def _read_record(folder: Location, index: int) -> ShardRecord:
    location = folder / "shards" / _record_name(index)
    try:
        return ShardRecord.model_validate(location.read_json())
    except ValidationError as error:
        raise ArchiveError(f"{location}: corrupt record of a shard; delete it and ingest again") from error


def _record_name(index: int) -> str:
    return f"{index:05d}.json"
