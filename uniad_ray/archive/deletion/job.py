"""Deletes images from the shards of an archive. An interrupted deletion goes on with the next call."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from uniad_ray.archive.deletion.choice import Chosen, DeletionChoice, choose
from uniad_ray.archive.exclusions import NamedImage
from uniad_ray.archive.ingest.deletions import (
    deletions,
    finish_deletion,
    read_deletion,
    write_deletion,
)
from uniad_ray.archive.ingest.records import (
    finish_ingest,
    finished_ingests,
    hold_archive,
    ingest_folder,
    rebuild_manifest,
)
from uniad_ray.archive.manifest import ArchiveManifest, Shard, read_manifest
from uniad_ray.archive.shards import rewrite_shard
from uniad_ray.archive.stores.lease import Lease
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError

_logger = logging.getLogger(__name__)


class DeletedImages(StrictModel):
    """Images of one category.

    Attributes:
        category: The category.
        images: Number of images.
        source_uris: URIs that they were ingested from.
    """

    category: str
    images: int
    source_uris: tuple[str, ...]


class DeletionRecord(StrictModel):
    """One deletion of the record.

    Attributes:
        name: Its name, which sorts by time.
        images: Number of images.
        deleted_by: Who deleted them.
        reason: Reason that was given.
        requested_at: UTC, ISO 8601.
    """

    name: str
    images: int
    deleted_by: str
    reason: str
    requested_at: str


class DeletionReport(StrictModel):
    """Result of a deletion, or what it would be.

    Attributes:
        archive: Root of the archive.
        is_dry_run: Whether nothing was deleted.
        images: Number of images that were chosen.
        categories: The images by category.
        shards: Number of shards that hold them.
        without_time: Images that fit apart from the time, which is unknown; they are not deleted.
        resumed: Interrupted deletions that this call finished; with `is_dry_run`, those that it would.
        left: Images in the archive after the call.
        deletions: The record, by time.
    """

    archive: str
    is_dry_run: bool
    images: int
    categories: tuple[DeletedImages, ...]
    shards: int
    without_time: int
    resumed: tuple[str, ...]
    left: int
    deletions: tuple[DeletionRecord, ...]


def delete_images(
    archive: str, choice: DeletionChoice, *, deleted_by: str, reason: str, dry_run: bool = False
) -> DeletionReport:
    """Deletes images with their masks from the shards, after those of interrupted deletions.

    A record says who deleted what, when and why, by digests. Rows of runs keep their scores. The same files are not
    ingested again. No other job should read the archive meanwhile; none can write it.

    Args:
        archive: Root of the archive.
        choice: The images; an empty choice only finishes interrupted deletions.
        deleted_by: Who deletes them.
        reason: Why.
        dry_run: Whether to choose only.

    Raises:
        ArchiveError: There is no archive or no such image, no reason is given, or a shard is corrupt.
        LeaseError: Another process ingests into the archive, or deletes from it.
        StoreError: The store failed; the next call goes on.
    """
    root = Location.parse(archive)
    # Before the lease, so that a mistyped path is left alone.
    manifest = read_manifest(root)
    if dry_run:
        return _report(root, manifest, deletions(root)[1], _choose(root, manifest, choice), dry_run=True)
    if not choice.is_empty and not (reason.strip() and deleted_by.strip()):
        raise ArchiveError("the reason or the name is empty; say with --reason why the images are deleted")
    with hold_archive(root) as lease:
        resumed = resume_deletions(root, lease)
        chosen = _choose(root, read_manifest(root), choice)
        if chosen.rows:
            lease.check()
            write_deletion(root, chosen.rows, deleted_by=deleted_by.strip(), reason=reason.strip())
            resume_deletions(root, lease)
        return _report(root, read_manifest(root), resumed, chosen, dry_run=False)


def _choose(root: Location, manifest: ArchiveManifest, choice: DeletionChoice) -> Chosen:
    return Chosen((), 0) if choice.is_empty else choose(root, manifest, choice)


def _report(
    root: Location, manifest: ArchiveManifest, resumed: Sequence[str], chosen: Chosen, *, dry_run: bool
) -> DeletionReport:
    by_category: defaultdict[str, list[str]] = defaultdict(list)
    for row in chosen.rows:
        by_category[row.category].append(row.source_uri)
    return DeletionReport(
        archive=root.uri,
        is_dry_run=dry_run,
        images=len(chosen.rows),
        categories=tuple(
            DeletedImages(category=name, images=len(uris), source_uris=tuple(uris))
            for name, uris in sorted(by_category.items())
        ),
        shards=len({row.shard for row in chosen.rows}),
        without_time=chosen.without_time,
        resumed=tuple(resumed),
        left=manifest.images,
        deletions=_records(root),
    )


def list_deletions(archive: str) -> DeletionReport:
    """Lists what was deleted from an archive.

    Raises:
        ArchiveError: There is no archive, or a record is corrupt.
    """
    return delete_images(archive, DeletionChoice(), deleted_by="", reason="", dry_run=True)


def is_deleted(archive: Location, name: str) -> bool:
    """Whether a name, as `NamedImage.is_named` compares it, is that of a deleted image.

    Raises:
        ArchiveError: A record is corrupt.
    """
    names = NamedImage.__dataclass_fields__
    return any(
        NamedImage(**row).is_named(name)
        for deletion in deletions(archive)[0]
        for row in read_deletion(archive, deletion, columns=list(names)).to_pylist()
    )


def finish_deletions(archive: Location) -> None:
    """Finishes the deletions that were interrupted; without any, it takes no lease.

    Raises:
        ArchiveError: A record or a shard is corrupt.
        LeaseError: Another process ingests into the archive, or deletes from it.
        StoreError: The store failed; the next call goes on.
    """
    if deletions(archive)[1]:
        with hold_archive(archive) as lease:
            resume_deletions(archive, lease)


def resume_deletions(archive: Location, lease: Lease) -> list[str]:
    """Finishes the deletions that were interrupted.

    Args:
        archive: Root of the archive.
        lease: Its lease: of two processes that rewrite a shard, one would bring back what the other has deleted.

    Returns:
        Their names.

    Raises:
        ArchiveError: A record or a shard is corrupt.
        LeaseError: Another process has taken over.
        StoreError: The store failed; the next call goes on.
    """
    pending = deletions(archive)[1]
    for name in pending:
        table = read_deletion(archive, name, columns=["shard", "row_key"])
        keys: defaultdict[str, set[str]] = defaultdict(set)
        for shard, key in zip(*(table.column(column).to_pylist() for column in ("shard", "row_key")), strict=True):
            keys[shard].add(key)
        _apply(archive, keys, lease)
        finish_deletion(archive, name, len(keys))
        _logger.info("%s: deleted %d images (deletion %s)", archive, table.num_rows, name)
    return pending


def _apply(archive: Location, keys: Mapping[str, Collection[str]], lease: Lease) -> None:
    """Rewrites shards without some rows, then the records that list the shards, then the manifest.

    Killed in between, the manifest does not fit its shards until the next call: readers refuse them.
    """
    missing = set(keys)
    for record in finished_ingests(archive):
        missing -= {shard.path for shard in record.shards}
        if not any(shard.path in keys for shard in record.shards):
            continue
        kept: list[Shard] = []
        for shard in record.shards:
            entry = _rewritten(archive, shard, keys[shard.path], lease) if shard.path in keys else shard
            kept += [] if entry is None else [entry]
        lease.check()
        finish_ingest(ingest_folder(archive, record.ingest_id), record.model_copy(update={"shards": tuple(kept)}))
    for path in missing:
        # Only shards whose last image an earlier attempt has deleted may be unknown.
        if (archive / path).exists():
            raise ArchiveError(f"{archive / path}: no ingest lists this shard; ingest the images into a new archive")
    rebuild_manifest(archive)


def _rewritten(archive: Location, shard: Shard, without: Collection[str], lease: Lease) -> Shard | None:
    """Writes a shard without some rows, or deletes it; returns its new entry."""
    found = rewrite_shard(archive, shard, without)
    location = archive / shard.path
    lease.check()
    if found is not None:
        location.write_bytes(found[0])
        return found[1]
    if location.exists():
        location.delete()
    return None


def _records(archive: Location) -> tuple[DeletionRecord, ...]:
    found = []
    for name in deletions(archive)[0]:
        table = read_deletion(archive, name, columns=["deleted_by", "reason", "requested_at"])
        found.append(DeletionRecord(name=name, images=table.num_rows, **table.slice(0, 1).to_pylist()[0]))
    return tuple(found)
