"""What an archive already holds of a source: which files its finished ingests have read, and their contents."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uniad_ray.archive.ingest.deletions import deleted_contents
from uniad_ray.archive.ingest.moves import Moves
from uniad_ray.archive.ingest.records import IngestRecord, ingest_folder
from uniad_ray.archive.layouts import SourceImage
from uniad_ray.archive.naming import normalised
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import open_parquet
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError, ObjectNotFoundError

PLAN_NAME = "plan.parquet"
_READ_THREADS = 16
_LABELS = ("split", "label", "defect_kind", "anomaly_type")
_COLUMNS = ("row_key", "source_uri", "source_version", "mask_uris", "mask_versions", "shard", *_LABELS, "metadata")
_SCHEMA = pa.schema([dataset_schema("ingest_plan").arrow.field(name) for name in _COLUMNS])


@dataclass(frozen=True)
class Contents:
    """What an archive holds of one path.

    Attributes:
        images: sha256 of each image that was taken from it, 64 hex digits, sorted.
        masks: sha256 of each mask of these images, sorted.
    """

    images: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()


class KnownFiles:
    """The files that the finished ingests of an archive have read and not rejected.

    A path is identified by its row key. What it held is known in two ways: by the versions that the store listed, which
    are compared without reading the file, and by the digests of its contents in the shards.
    """

    def __init__(
        self,
        archive: Location | None = None,
        files: pa.Table | None = None,
        shards: Iterable[str] = (),
        moves: Moves | None = None,
    ) -> None:
        self._archive = archive
        self._moves = moves
        self._files = _SCHEMA.empty_table() if files is None else files
        self._shards = frozenset(shards)
        self._rows: dict[str, tuple[int, ...]] = {}
        for row, key in enumerate(self._files.column("row_key").to_pylist()):
            self._rows[key] = (*self._rows.get(key, ()), row)

    @classmethod
    def read(cls, archive: Location, records: Sequence[IngestRecord]) -> KnownFiles:
        """Reads the plans of finished ingests.

        Args:
            archive: Root of the archive.
            records: Its finished ingests.

        Raises:
            ArchiveError: A plan is corrupt, or a newer version of uniad_ray wrote it.
        """
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            tables = list(pool.map(lambda record: _read_plan(archive, record), records))
        files = pa.concat_tables([_SCHEMA.empty_table(), *tables]).combine_chunks()
        moves = Moves.read(archive) if any(record.replaces for record in records) else None
        return cls(archive, files, (shard.path for record in records for shard in record.shards), moves)

    def rows(self, image: SourceImage) -> tuple[int, ...]:
        """The numbers of the files that were read from the path of an image; empty if it is new."""
        former = self._rows.get(image.former_key, ()) if image.former_key else ()
        return (*self._rows.get(image.row_key, ()), *former)

    def is_unchanged(self, image: SourceImage, rows: Sequence[int]) -> bool:
        """Whether the store lists the versions of an image and its masks that were read.

        Args:
            image: The image as listed.
            rows: From `rows`.
        """
        read = [(self._value("source_uri", row), self._value("source_version", row)) for row in rows]
        if not image.version or (image.uri, image.version) not in read:
            return False
        masks = set(zip(image.mask_uris, image.mask_versions, strict=True))
        for row in rows if masks else ():
            masks -= set(zip(self._value("mask_uris", row), self._value("mask_versions", row), strict=True))
        return not masks

    def has_labels(self, image: SourceImage, rows: Sequence[int]) -> bool:
        """Whether an image was planned with its present split, label, defect kind and metadata.

        Args:
            image: The image as listed.
            rows: From `rows`.
        """
        labels = (image.split, image.label, image.defect_kind, image.anomaly_type)
        metadata = [{"name": name, "value": value} for name, value in image.metadata]
        return any(
            labels == tuple(self._value(name, row) for name in _LABELS) and metadata == self._value("metadata", row)
            for row in rows
        )

    def contents(self, groups: Sequence[Sequence[int]]) -> list[Contents]:
        """Reads what the archive holds of some paths; one pass over the shards concerned, without their images.

        Deleted images count: what was deleted does not come back with the next ingest.

        Args:
            groups: For each path, the result of `rows`.

        Raises:
            ArchiveError: A shard is corrupt.
            StoreError: A shard cannot be read.
        """
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for row in (row for rows in groups for row in rows):
            wanted[self._value("shard", row)].add(self._value("source_uri", row))
        # If no file of a planned shard was new, there is no shard.
        present = sorted(wanted.keys() & self._shards)
        holders = {shard: self._holders(shard) for shard in wanted}
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            read = pool.map(lambda shard: self._digests(holders[shard], wanted[shard]), present)
            found = dict(zip(present, read, strict=True))
        places = {(place, uri) for shard, uris in wanted.items() for place in holders[shard] for uri in uris}
        deleted = {} if self._archive is None else deleted_contents(self._archive, places | _places(wanted))
        result = []
        for rows in groups:
            images: set[str] = set()
            masks: set[str] = set()
            for row in rows:
                shard, uri = self._value("shard", row), self._value("source_uri", row)
                gone = [entry for place in {shard, *holders[shard]} for entry in deleted.get((place, uri), ())]
                for image, own in (*gone, *found.get(shard, {}).get(uri, ())):
                    images.add(image)
                    masks |= set(own)
            result.append(Contents(tuple(sorted(images)), tuple(sorted(masks))))
        return result

    def _value(self, column: str, row: int) -> Any:
        return self._files.column(column)[row].as_py()

    def _holders(self, shard: str) -> dict[str, pa.Array | None]:
        """The shards with the rows of a shard, and the keys of these rows; None for all rows."""
        if self._moves is None or not len(keys := self._moves.keys_of([shard])):
            return {shard: None}
        return {place: keys for place, _ in sorted(self._moves.places(keys))}

    def _digests(
        self, holders: Mapping[str, pa.Array | None], uris: set[str]
    ) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
        """Digests of each image and its masks, by source URI."""
        assert self._archive is not None  # noqa: S101 - there are shards
        found: defaultdict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
        for shard, keys in holders.items():
            try:
                with open_parquet(self._archive / shard) as file:
                    rows = file.read(columns=["row_key", "source_uri", "image_id", "masks"])
            except ObjectNotFoundError:
                if keys is None:
                    raise
                # The last row of a compacted shard was deleted.
                continue
            rows = rows.filter(pc.is_in(rows.column("source_uri"), value_set=pa.array(sorted(uris), pa.string())))
            if keys is not None:
                rows = rows.filter(pc.is_in(rows.column("row_key"), value_set=keys))
            for row in (row for batch in rows.to_batches(max_chunksize=16) for row in batch.to_pylist()):
                masks = tuple(sha256(mask["mask"]) for mask in row["masks"])
                found[row["source_uri"]].append((row["image_id"], masks))
        return dict(found)


def _places(wanted: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    return {(shard, uri) for shard, uris in wanted.items() for uri in uris}


def sha256(data: bytes) -> str:
    """Digest of a file, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def known_spellings(records: Iterable[IngestRecord]) -> dict[str, str]:
    """The names of an archive's categories that are not normalised, by their normalised form.

    Archives from before names were normalised may have such names; new images of such a category keep the name.
    """
    names = {shard.category for record in records for shard in record.shards}
    return {normalised(name): name for name in sorted(names) if normalised(name) not in names}


def _read_plan(archive: Location, record: IngestRecord) -> pa.Table:
    """The files that one ingest has read and not rejected."""
    location = ingest_folder(archive, record.ingest_id) / PLAN_NAME
    try:
        with open_parquet(location) as file:
            _check_version(location, file)
            names = [name for name in _COLUMNS if name in file.schema_arrow.names]
            files = file.read(columns=names)
    except ObjectNotFoundError:
        # An ingest that read no file has no plan.
        return _SCHEMA.empty_table()
    refused = {entry.source_uri for entry in record.rejected}
    is_refused = pc.is_in(files.column("source_uri"), value_set=pa.array(sorted(refused), pa.string()))
    files = files.filter(pc.invert(is_refused))
    columns = {name: files.column(name) for name in names}
    if "metadata" not in names:
        columns["metadata"] = [[]] * files.num_rows
    if "source_version" not in names:
        # An empty version equals no other: the files of an old plan are compared by their contents.
        columns["source_version"] = pa.array([""] * files.num_rows)
        columns["mask_versions"] = [[""] * len(uris) for uris in columns["mask_uris"].to_pylist()]
    elif refused:
        masks = zip(columns["mask_uris"].to_pylist(), columns["mask_versions"].to_pylist(), strict=True)
        columns["mask_versions"] = [
            ["" if uri in refused else version for uri, version in zip(*pair, strict=True)] for pair in masks
        ]
    return pa.Table.from_pydict({name: columns[name] for name in _COLUMNS}, schema=_SCHEMA)


def _check_version(location: Location, file: pq.ParquetFile) -> None:
    version = int((file.schema_arrow.metadata or {}).get(b"uniad_ray.schema_version", b"1"))
    if version > dataset_schema("ingest_plan").version:
        raise ArchiveError(
            f"{location}: written by a newer version of uniad_ray; use that version, or ingest into a new archive"
        )
