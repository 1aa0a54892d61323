"""Joins the small shards of each category into larger ones with the same rows.

The new shards are written first, then the table of moved rows, and then the record of the compaction. The record is the
commit: from it on, the manifest lists the new shards in the place of the former ones, which are deleted last. Killed
before the record, nothing has changed but for files that no manifest lists; killed after it, the next compaction or
ingest does what is left. No row is in two shards of a manifest, and none in none.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.deletion import resume_deletions
from uniad_ray.archive.ingest.leftovers import remove_leftovers
from uniad_ray.archive.ingest.moves import MOVED_NAME, PREFIX, SCHEMA
from uniad_ray.archive.ingest.records import (
    IngestRecord,
    finish_ingest,
    finished_ingests,
    hold_archive,
    ingest_folder,
    rebuild_manifest,
)
from uniad_ray.archive.manifest import ArchiveManifest, Chunk, Shard, choose_categories, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import ShardLimits, encode_row_groups, encode_rows, read_chunk
from uniad_ray.archive.stores.lease import Lease
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError

_logger = logging.getLogger(__name__)


class CompactedCategory(StrictModel):
    """One category before and after.

    Attributes:
        category: The category.
        images: Number of image rows that were moved.
        shards_before: Number of its shards before.
        shards_after: Number of its shards after; with a dry run, as estimated.
        chunks_before: Number of its chunks before.
        chunks_after: Number of its chunks after; with a dry run, as estimated.
    """

    category: str
    images: int
    shards_before: int
    shards_after: int
    chunks_before: int
    chunks_after: int


class CompactionReport(StrictModel):
    """Result of a compaction, or what it would be.

    Attributes:
        archive: Root of the archive.
        is_dry_run: Whether nothing was changed.
        categories: Categories with shards to join.
        removed_shards: Shards of interrupted compactions and ingests that were removed.
        images: Rows of the whole archive.
        digest: Digest of the whole archive.
    """

    archive: str
    is_dry_run: bool
    categories: tuple[CompactedCategory, ...]
    removed_shards: int
    images: int
    digest: str


def compact(
    archive: str,
    *,
    categories: Sequence[str] = (),
    limits: ShardLimits | None = None,
    dry_run: bool = False,
) -> CompactionReport:
    """Joins small shards: those with less than half of the rows and bytes that a shard may have.

    Rows keep their keys and their content, and runs, nights, deletions and captions find them in their new places. The
    digest of the archive changes: a run or a sidecar that was started before and is not finished is refused. No other
    job should read the archive meanwhile; none can write it. An interrupted call goes on with the next one.

    Args:
        archive: Root of the archive.
        categories: Categories to compact; default all.
        limits: Maximum sizes of shards and row groups.
        dry_run: Whether to plan only.

    Raises:
        ArchiveError: There is no archive or no such category, or a shard is corrupt.
        LeaseError: Another process ingests into the archive, deletes from it or compacts it.
        StoreError: The store failed; the next call goes on.
    """
    root, bounds = Location.parse(archive), limits or ShardLimits()
    # Before the lease, so that a mistyped path is left alone.
    manifest = read_manifest(root)
    wanted = choose_categories(root, manifest, categories)
    if dry_run:
        found = [_estimated(manifest, name, bounds) for name in wanted if _small(manifest, name, bounds)]
        return _report(root, manifest, found, 0, dry_run=True)
    with hold_archive(root) as lease:
        resume_deletions(root, lease)
        _check_records(root, manifest)
        # The commit of an interrupted compaction may be newer than the manifest.
        manifest = rebuild_manifest(root)
        removed = len(remove_leftovers(root, manifest).removed)
        found = []
        for name in wanted:
            small = _small(manifest, name, bounds)
            if not small:
                continue
            before = [shard for shard in manifest.shards if shard.category == name]
            _compact(root, small, bounds, lease)
            manifest = rebuild_manifest(root)
            lease.check()
            remove_leftovers(root, manifest)
            found.append(_compared(name, before, manifest, sum(shard.rows for shard in small)))
            _logger.info("%s: %s has %d shards instead of %d", root, name, found[-1].shards_after, len(before))
        return _report(root, manifest, found, removed, dry_run=False)


def _check_records(root: Location, manifest: ArchiveManifest) -> None:
    """Checks that the manifest follows from the records of ingests, from which it is about to be built again."""
    known = {shard.path for record in finished_ingests(root) for shard in record.shards}
    unknown = sorted(shard.path for shard in manifest.shards if shard.path not in known)
    if unknown:
        raise ArchiveError(f"{root / unknown[0]}: no ingest lists this shard; ingest the images into a new archive")


def _report(
    root: Location, manifest: ArchiveManifest, found: Sequence[CompactedCategory], removed: int, *, dry_run: bool
) -> CompactionReport:
    return CompactionReport(
        archive=root.uri,
        is_dry_run=dry_run,
        categories=tuple(found),
        removed_shards=removed,
        images=manifest.images,
        digest=manifest.digest,
    )


def _small(manifest: ArchiveManifest, category: str, limits: ShardLimits) -> list[Shard]:
    """The shards of a category to join: at least two, or none. Any two of them fit into one."""
    small = [
        shard
        for shard in manifest.shards
        if shard.category == category and 2 * shard.rows <= limits.rows and 2 * shard.bytes <= limits.bytes
    ]
    return small if len(small) > 1 else []


def _compared(category: str, before: Sequence[Shard], manifest: ArchiveManifest, images: int) -> CompactedCategory:
    after = [shard for shard in manifest.shards if shard.category == category]
    return CompactedCategory(
        category=category,
        images=images,
        shards_before=len(before),
        shards_after=len(after),
        chunks_before=_chunks(before),
        chunks_after=_chunks(after),
    )


def _chunks(shards: Sequence[Shard]) -> int:
    return sum(bool(group.rows) for shard in shards for group in shard.row_groups)


def _estimated(manifest: ArchiveManifest, category: str, limits: ShardLimits) -> CompactedCategory:
    small = _small(manifest, category, limits)
    before = [shard for shard in manifest.shards if shard.category == category]
    by_split: dict[str, int] = {}
    for group in (group for shard in small for group in shard.row_groups):
        by_split[group.split] = by_split.get(group.split, 0) + group.rows
    images = sum(shard.rows for shard in small)
    shards = max(-(-images // limits.rows), -(-sum(shard.bytes for shard in small) // limits.bytes))
    chunks = sum(-(-rows // limits.row_group_rows) for rows in by_split.values())
    return CompactedCategory(
        category=category,
        images=images,
        shards_before=len(before),
        shards_after=len(before) - len(small) + shards,
        chunks_before=_chunks(before),
        chunks_after=_chunks(before) - _chunks(small) + max(chunks, shards),
    )


def _compact(archive: Location, small: Sequence[Shard], limits: ShardLimits, lease: Lease) -> None:
    """Writes the shards that replace some shards of a category, and commits them."""
    name = _name(archive, small)
    folder = small[0].path.rpartition("/")[0]
    entries: list[Shard] = []
    moved: list[pa.Table] = []
    for number, (table, places) in enumerate(_joined(archive, small, limits)):
        data, entry = encode_rows(f"{folder}/{name}-{number:05d}.parquet", small[0].category, table, limits)
        lease.check()
        (archive / entry.path).write_bytes(data)
        entries.append(entry)
        moved.append(_moves(table, places, entry))
    rows, expected = sum(entry.rows for entry in entries), sum(shard.rows for shard in small)
    if rows != expected:
        raise ArchiveError(f"{archive}: {rows} rows in the new shards, {expected} in the former ones; nothing changes")
    target = ingest_folder(archive, name)
    (target / MOVED_NAME).write_bytes(encode_row_groups(dataset_schema(SCHEMA), moved))
    record = IngestRecord(
        ingest_id=name,
        source="",
        shards=tuple(entries),
        rejected=(),
        replaces=tuple(shard.path for shard in small),
    )
    lease.check()
    finish_ingest(target, record)


def _name(archive: Location, small: Sequence[Shard]) -> str:
    """Names a compaction by how many there were before it, and by its shards: later ones sort later."""
    before = sum(bool(record.replaces) for record in finished_ingests(archive))
    digest = hashlib.sha256("".join(f"{shard.path} {shard.sha256}\n" for shard in small).encode()).hexdigest()
    return f"{PREFIX}{before + 1:05d}-{digest[:8]}"


def _joined(
    archive: Location, small: Sequence[Shard], limits: ShardLimits
) -> Iterator[tuple[pa.Table, list[tuple[str, int]]]]:
    """Yields the rows of each new shard, split by split, and the former shard and row group of each row."""
    groups = sorted(
        (group.split, shard.path, index, group.rows)
        for shard in small
        for index, group in enumerate(shard.row_groups)
        if group.rows
    )
    tables: list[pa.Table] = []
    places: list[tuple[str, int]] = []
    taken = 0
    for split, path, index, rows in groups:
        table = read_chunk(archive, Chunk(path, index, rows, small[0].category, split))
        start = 0
        for row, size in enumerate(pc.binary_length(table.column("image")).to_pylist()):
            if places and (len(places) >= limits.rows or taken + size > limits.bytes):
                yield pa.concat_tables([*tables, table.slice(start, row - start)]), places
                tables, places, taken, start = [], [], 0, row
            places.append((path, index))
            taken += size
        tables.append(table.slice(start))
    if places:
        yield pa.concat_tables(tables), places


def _moves(table: pa.Table, places: Sequence[tuple[str, int]], entry: Shard) -> pa.Table:
    groups = [number for number, group in enumerate(entry.row_groups) for _ in range(group.rows)]
    return dataset_schema(SCHEMA).table(
        {
            "row_key": table.column("row_key").to_pylist(),
            "from_shard": [shard for shard, _ in places],
            "from_row_group": [row_group for _, row_group in places],
            "shard": [entry.path] * entry.rows,
            "row_group": groups,
        }
    )
