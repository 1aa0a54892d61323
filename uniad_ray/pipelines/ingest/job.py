"""Ingests a source of images into an archive of Parquet shards with a resumable Ray Data job."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from uniad_ray.archive.deletion import resume_deletions
from uniad_ray.archive.images import ImageLimits
from uniad_ray.archive.images.bit_depth import unshifted_warning
from uniad_ray.archive.ingest import (
    IngestPlan,
    IngestRecord,
    KnownFiles,
    ShardRecord,
    SourceRecord,
    build_shard,
    finished_ingests,
    plan_ingest,
    read_planned_shard,
    rebuild_manifest,
)
from uniad_ray.archive.ingest.known import PLAN_NAME, known_spellings
from uniad_ray.archive.ingest.leftovers import remove_leftovers
from uniad_ray.archive.ingest.records import (
    finish_ingest,
    forget_shards,
    hold_archive,
    ingest_folder,
    read_shard_record,
    shard_record_name,
    write_shard_record,
    write_source_record,
)
from uniad_ray.archive.layouts import Label, ManifestSource, Source, Split, open_manifest, open_source
from uniad_ray.archive.layouts.registry import AUTO
from uniad_ray.archive.manifest import LISTED_REJECTS, RejectedFile
from uniad_ray.archive.naming import printable
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.lease import Lease
from uniad_ray.archive.stores.location import Location, is_utf8
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError, ObjectNotFoundError
from uniad_ray.pipelines.cluster.metrics import RayMetrics
from uniad_ray.pipelines.cluster.session import configure_ray_data, ray_session, unwrap
from uniad_ray.progress import Progress

_logger = logging.getLogger(__name__)


class IngestReport(StrictModel):
    """Result of an ingest. Every file of the source is taken, known, changed, attached or rejected.

    Attributes:
        archive: URI of the archive.
        ingest_id: Identifier of this ingest.
        new_images: Rows added by this ingest: the taken and the changed files.
        taken: Number of image files that are new.
        known: Number of image files that the archive already holds.
        changed: Image files whose path the archive already holds with other content; the new content is a new row.
        attached: Number of masks and tables that belong to the images.
        rejected: Files of this source that were rejected, with the reason.
        warnings: What may be wrong with the images that were taken.
        skipped_shards: Shards that an earlier call had already built.
        removed_shards: Shards of interrupted ingests that were removed, because later ingests have read their files.
        images: Rows of the whole archive.
        digest: Digest of the whole archive.
    """

    archive: str
    ingest_id: str
    new_images: int
    taken: int
    known: int
    changed: tuple[str, ...]
    attached: int
    rejected: tuple[RejectedFile, ...]
    warnings: tuple[str, ...]
    skipped_shards: int
    removed_shards: int = 0
    images: int
    digest: str

    @property
    def is_all_rejected(self) -> bool:
        """Whether the source has files, but no image that is in the archive now."""
        return bool(self.rejected) and not (self.new_images or self.known)


def ingest(
    source: str,
    archive: str,
    *,
    manifest: str | None = None,
    category: str | None = None,
    layout: str = "auto",
    split: Split | None = None,
    label: Label | None = None,
    limits: ShardLimits | None = None,
    address: str | None = None,
) -> IngestReport:
    """Adds the images of a source to an archive.

    An interrupted ingest resumes when it is called again, and produces the same bytes as an uninterrupted one. A
    repeated ingest adds only what is new: files, and other content under a known path. Rejected files are read again.
    One process at a time fills an archive or deletes from it.

    Args:
        source: Folder or S3 prefix, in a layout of docs/layouts.md or with plain images.
        archive: Folder or S3 prefix of the archive; created if missing.
        manifest: File that lists the images with labels, masks and metadata; its relative paths start at `source`.
        category: Category to take, or its name if the source has none.
        layout: One of `LAYOUT_NAMES`; `auto` detects it.
        split: Split of a plain folder, and of lines of a manifest without one; default `archive`.
        label: Label of a plain folder, and of lines of a manifest without one; default unknown.
        limits: Maximum sizes of shards and row groups.
        address: Ray cluster to join; by default, Ray starts on this machine.

    Raises:
        ArchiveError: The source is empty, the archive is corrupt, or a path is not Unicode text.
        LeaseError: Another process ingests into the archive, or deletes from it.
        StoreError: A store cannot be read or written.
    """
    root, target = Location.parse(source), Location.parse(archive)
    if not is_utf8(target.uri):
        raise ArchiveError(f"{printable(target.uri)}: the path is not UTF-8 text; name another archive")
    bounds = limits or ShardLimits()
    opened: Source | ManifestSource
    if manifest is None:
        opened = open_source(root, layout=layout, category=category, split=split, label=label)
    elif layout != AUTO:
        raise ArchiveError("--layout does not go with --manifest, which lists the images itself; omit one of them")
    else:
        opened = open_manifest(root, Location.parse(manifest), category=category, split=split, label=label)
    _logger.info("%s: read as layout %s", opened.uri, opened.layout_name)
    with hold_archive(target) as lease:
        resume_deletions(target, lease)
        finished = finished_ingests(target)
        spellings = known_spellings(finished)
        defects = {spellings.get(name, name): content for name, content in opened.defects.items()}
        known = KnownFiles.read(target, finished)
        plan = plan_ingest(opened.entries(), limits=bounds, known=known, spellings=spellings)
        folder = ingest_folder(target, plan.ingest_id)
        lease.check()
        built = _prepare(plan, folder, finished) if plan.shards else set()
        _run(plan, built, defects, folder, target, bounds, address, lease)
        records = [read_shard_record(folder, index) for index in range(len(plan.shards))]
        lease.check()
        return _finish(plan, opened, target, records, defects, len(built), lease)


def _prepare(plan: IngestPlan, folder: Location, finished: Iterable[IngestRecord]) -> set[int]:
    """Writes the plan, and returns the numbers of the shards that are already built for it.

    A finished ingest of that name added no row: the name of one that did follows from what the archive held before. So
    its files were rejected, or only their versions have changed, and all are read again.
    """
    earlier = [record for record in finished if record.ingest_id == plan.ingest_id]
    try:
        is_same = (folder / PLAN_NAME).read_bytes() == plan.data
    except ObjectNotFoundError:
        is_same = False
    if is_same and earlier:
        return set()
    if not is_same:
        # First the records: with this plan, they would vouch for versions that they have not read.
        forget_shards(folder)
        (folder / PLAN_NAME).write_bytes(plan.data)
    done = {info.relative for info in (folder / "shards").list(suffix=".json")}
    return {index for index in range(len(plan.shards)) if shard_record_name(index) in done}


def _run(
    plan: IngestPlan,
    built: set[int],
    defects: dict[str, Any],
    folder: Location,
    archive: Location,
    limits: ShardLimits,
    address: str | None,
    lease: Lease,
) -> None:
    """Builds the planned shards that are missing."""
    pending = [index for index in range(len(plan.shards)) if index not in built]
    if not pending:
        return
    work = functools.partial(
        _build_planned_shard, folder=folder.uri, archive=archive.uri, defects=defects, limits=limits, lease=lease
    )
    present = [read_shard_record(folder, index) for index in sorted(built)]
    _build_on_ray(pending, work, plan.images, present, address)


def _build_on_ray(
    pending: list[int],
    work: Callable[[dict[str, Any]], dict[str, Any]],
    images: int,
    present: list[ShardRecord],
    address: str | None,
) -> None:
    """Builds planned shards in Ray tasks; `images` and `present` are for the progress."""
    with ray_session(address) as cluster:
        import ray

        configure_ray_data()
        metrics = RayMetrics()
        dataset = ray.data.from_items([{"row_group": index} for index in pending], override_num_blocks=len(pending))
        dataset = dataset.map(work, num_cpus=cluster.cpu_share)
        with Progress("ingesting", images) as progress:
            for record in present:
                progress.advance(record.files, len(record.rejected))
            try:
                for summary in dataset.iter_rows():
                    files, rejected = int(summary["files"]), int(summary["rejected"])
                    progress.advance(files, rejected)
                    metrics.count("uniad_ray_ingest_files", files - rejected, outcome="read")
                    metrics.count("uniad_ray_ingest_files", rejected, outcome="rejected")
            except Exception as error:
                raise unwrap(error) from error


def _build_planned_shard(
    row: dict[str, Any], *, folder: str, archive: str, defects: dict[str, Any], limits: ShardLimits, lease: Lease
) -> dict[str, Any]:
    """Writes one shard and then its record, as a Ray task."""
    index = int(row["row_group"])
    target = Location.parse(folder)
    planned = read_planned_shard(target / PLAN_NAME, index)
    data, record = build_shard(
        planned,
        defects=defects.get(planned[0]["category"]),
        image_limits=ImageLimits(),
        shard_limits=limits,
    )
    shard = Location.parse(archive) / planned[0]["shard"]
    lease.check()
    if data is not None:
        shard.write_bytes(data)
    elif shard.exists():
        # An earlier attempt found an image.
        shard.delete()
    write_shard_record(target, index, record)
    return {"files": record.files, "rejected": len(record.rejected)}


def _finish(
    plan: IngestPlan,
    source: Source | ManifestSource,
    archive: Location,
    records: list[ShardRecord],
    defects: dict[str, Any],
    skipped: int,
    lease: Lease,
) -> IngestReport:
    """Writes the records of the ingest and of the source, then the manifest; removes what earlier calls left."""
    usable = {name: content for name, content in defects.items() if content}
    shards = tuple(record.shard for record in records if record.shard)
    read = [entry for record in records for entry in (*record.rejected, *record.rejected_masks)]
    if plan.shards:
        finished = IngestRecord(
            ingest_id=plan.ingest_id, source=source.uri, shards=shards, rejected=tuple(read), defects=usable
        )
        finish_ingest(ingest_folder(archive, plan.ingest_id), finished)
    rejected = [RejectedFile(source_uri=entry.source_uri, reason=entry.reason) for entry in plan.rejected] + read
    state = SourceRecord(
        source=source.uri,
        category=source.category,
        rejected_count=len(rejected),
        rejected=tuple(rejected[:LISTED_REJECTS]),
        defects=usable,
    )
    write_source_record(archive, state)
    manifest = rebuild_manifest(archive)
    lease.check()
    left = remove_leftovers(archive, manifest)
    changed = tuple(uri for record in records for uri in record.changed)
    new_images = sum(record.images for record in records)
    return IngestReport(
        archive=archive.uri,
        ingest_id=plan.ingest_id,
        new_images=new_images,
        taken=new_images - len(changed),
        known=plan.known + sum(record.known for record in records),
        changed=changed,
        attached=plan.attached - sum(len(record.rejected_masks) for record in records),
        rejected=tuple(rejected),
        warnings=(*_relabelled_warning(plan), *_pixel_warnings(records), *filter(None, [left.warning()])),
        skipped_shards=skipped,
        removed_shards=len(left.removed),
        images=manifest.images,
        digest=manifest.digest,
    )


def _relabelled_warning(plan: IngestPlan) -> Iterator[str]:
    if plan.relabelled:
        yield (
            f"{plan.relabelled} known images have another split, label, defect or metadata than in the archive, whose "
            "rows never change; ingest the source into a new archive to use them"
        )


def _pixel_warnings(records: Iterable[ShardRecord]) -> tuple[str, ...]:
    """Warnings about the pixels of the new images of each category."""
    peaks: dict[str, int] = {}
    for record in records:
        if record.shard is not None and record.peak is not None:
            peaks[record.shard.category] = max(record.peak, peaks.get(record.shard.category, 0))
    found = (unshifted_warning(category, peak) for category, peak in sorted(peaks.items()))
    return tuple(warning for warning in found if warning)
