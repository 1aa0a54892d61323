"""The records of an ingest, and the manifest that follows from them.

_ingest/<ingest>/plan.parquet         the files to read, written first
_ingest/<ingest>/shards/00000.json    what became of the files of one planned shard, written after the shard
_ingest/<ingest>/ingest.json          written last: the ingest is complete, and its shards are in the manifest
_ingest/compact-<number>-<digest>/    moved.parquet and then ingest.json of a compaction, which replaces shards
_ingest/sources/<digest>.json         what the last ingest of a source could not take
_ingest/lease/<number>.json           the process that ingests or deletes now
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from uniad_ray.archive.manifest import (
    MANIFEST_NAME,
    ArchiveManifest,
    RejectedFile,
    Shard,
    build_manifest,
)
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.stores.lease import Lease, hold
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError

ModelT = TypeVar("ModelT", bound=StrictModel)

FOLDER = "_ingest"
INGEST_NAME = "ingest.json"
_SOURCES = "sources"
_LEASE_FOLDER = f"{FOLDER}/lease"


class ShardRecord(StrictModel):
    """Result of one planned shard. If the record exists, the shard is complete.

    Attributes:
        shard: Its manifest entry; None if none of its files was a new image.
        rejected: Image files of the plan that were rejected.
        rejected_masks: Mask files of the plan that were rejected; their images were not.
        known: Number of files whose content is already in the archive.
        changed: URIs of files whose path is already in the archive, with other content.
        peak: Largest grey value of the 16-bit images that were looked at; None if there were none.
        read_bytes: Number of encoded bytes read.
    """

    shard: Shard | None
    rejected: tuple[RejectedFile, ...] = Field(default=())
    rejected_masks: tuple[RejectedFile, ...] = Field(default=())
    known: int = 0
    changed: tuple[str, ...] = Field(default=())
    peak: int | None = None
    read_bytes: int

    @property
    def images(self) -> int:
        """Number of new image rows."""
        return self.shard.rows if self.shard else 0

    @property
    def files(self) -> int:
        """Number of image files of the plan."""
        return self.images + self.known + len(self.rejected)


class IngestRecord(StrictModel):
    """Record of one ingest of one source, written last; its presence means that the ingest is complete.

    Attributes:
        ingest_id: Identifier of the ingest.
        source: URI of the source; empty for a compaction.
        shards: The shards that it added.
        rejected: Files that were read and rejected; another ingest reads them again.
        defects: Usable entries of `defects_config.json` by category.
        replaces: Paths of the shards that its shards stand for, if it is a compaction; no manifest lists them any more.
    """

    ingest_id: str
    source: str
    shards: tuple[Shard, ...]
    rejected: tuple[RejectedFile, ...]
    defects: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    replaces: tuple[str, ...] = ()


class SourceRecord(StrictModel):
    """The state of a source after its last ingest.

    Attributes:
        source: URI of the source.
        category: The category that was read; None if all were.
        rejected_count: Number of its files that were rejected.
        rejected: The first `LISTED_REJECTS` of them.
        defects: Usable entries of `defects_config.json` by category.
    """

    source: str
    category: str | None
    rejected_count: int
    rejected: tuple[RejectedFile, ...]
    defects: dict[str, list[dict[str, Any]]]


def hold_archive(archive: Location) -> AbstractContextManager[Lease]:
    """The lease of everything that writes shards or the manifest: see `hold`."""
    return hold(archive / _LEASE_FOLDER, f"the archive {archive}")


def ingest_folder(archive: Location, ingest_id: str) -> Location:
    """The folder of the plan and the records of an ingest."""
    return archive / FOLDER / ingest_id


def read_shard_record(folder: Location, index: int) -> ShardRecord:
    """Reads the record of a planned shard.

    Raises:
        ArchiveError: The record is corrupt.
        ObjectNotFoundError: The shard is not complete.
    """
    location = folder / "shards" / shard_record_name(index)
    try:
        return ShardRecord.model_validate(location.read_json())
    except ValidationError as error:
        raise ArchiveError(f"{location}: corrupt record of a shard; delete it and ingest again") from error


def write_shard_record(folder: Location, index: int, record: ShardRecord) -> None:
    """Writes the record of a planned shard, after its shard."""
    (folder / "shards" / shard_record_name(index)).write_json(record.model_dump(mode="json"))


def shard_record_name(index: int) -> str:
    """File name of the record of a planned shard."""
    return f"{index:05d}.json"


def finish_ingest(folder: Location, record: IngestRecord) -> None:
    """Writes the record of a complete ingest."""
    # Versions from before compactions read the records of ingests on.
    (folder / INGEST_NAME).write_json(record.model_dump(mode="json", exclude=None if record.replaces else {"replaces"}))


def forget_shards(folder: Location) -> None:
    """Makes an ingest unfinished, so that its files are read again. Deletes nothing that does not exist."""
    (folder / "shards").delete_tree()
    if (folder / INGEST_NAME).exists():
        (folder / INGEST_NAME).delete()


def write_source_record(archive: Location, record: SourceRecord) -> None:
    """Replaces the state of a source."""
    digest = hashlib.sha256(f"{record.source}\n{record.category or ''}".encode()).hexdigest()[:16]
    (archive / FOLDER / _SOURCES / f"{digest}.json").write_json(record.model_dump(mode="json"))


def finished_ingests(archive: Location) -> list[IngestRecord]:
    """Reads the records of all complete ingests, ordered by their identifiers.

    Raises:
        ArchiveError: A record is corrupt, or a newer version of uniad_ray wrote it.
    """
    return [_read(info.location, IngestRecord) for info in (archive / FOLDER).list(suffix=f"/{INGEST_NAME}")]


def rebuild_manifest(archive: Location) -> ArchiveManifest:
    """Builds the manifest of an archive from all finished ingests, and writes it.

    An ingest that lost its lease and does not know yet may rebuild it at the same time. The listing is repeated until
    it no longer changes; the last writer then includes both.
    """
    manifest = _manifest(archive)
    while True:
        (archive / MANIFEST_NAME).write_json(manifest.model_dump(mode="json"))
        again = _manifest(archive)
        if again == manifest:
            return manifest
        manifest = again


def _manifest(archive: Location) -> ArchiveManifest:
    records = finished_ingests(archive)
    sources = [_read(info.location, SourceRecord) for info in (archive / FOLDER / _SOURCES).list(suffix=".json")]
    defects: dict[str, Any] = {}
    for found in (*(record.defects for record in records), *(record.defects for record in sources)):
        defects.update(found)
    rejected = [entry for record in sources for entry in record.rejected]
    replaced = {path for record in records for path in record.replaces}
    return build_manifest(
        schema_version=dataset_schema("image").version,
        shards=[shard for record in records for shard in record.shards if shard.path not in replaced],
        rejected=[*rejected, *_rejected_before(records, sources)],
        rejected_further=sum(record.rejected_count for record in sources) - len(rejected),
        defects=defects,
        ingests=[record.ingest_id for record in records],
    )


def _rejected_before(records: Sequence[IngestRecord], sources: Sequence[SourceRecord]) -> list[RejectedFile]:
    """Rejected files of sources that were last ingested when there were no records of sources."""
    later = {record.source for record in sources}
    return [entry for record in records if record.source not in later for entry in record.rejected]


def _read(location: Location, model: type[ModelT]) -> ModelT:
    try:
        return model.model_validate(location.read_json())
    except ValidationError as error:
        raise ArchiveError(
            f"{location}: corrupt record of an ingest, or one of a newer version of uniad_ray; use that version, or "
            "ingest into a new archive"
        ) from error
