"""Writes and reads the Parquet image shards."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uniad_ray.archive.manifest import Chunk, RowGroup, Shard
from uniad_ray.archive.schemas import DatasetSchema, dataset_schema
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError

MAX_ROW_GROUP_ROWS = 64
"""Maximum number of images in a chunk, whatever the limits of the shard."""

_UNCOMPRESSED_FORMATS = frozenset({"BMP"})


@dataclass(frozen=True)
class ShardLimits:
    """Limits of one shard.

    Attributes:
        rows: Maximum number of images in a shard.
        bytes: Maximum total size of the encoded images in a shard; a single larger image gets its own shard.
        row_group_rows: Maximum number of images in a chunk, 1 to 64.
        row_group_bytes: Maximum total size of the encoded images in a chunk; a single larger image gets its own chunk.
    """

    rows: int = 1024
    bytes: int = 128 << 20
    row_group_rows: int = MAX_ROW_GROUP_ROWS
    row_group_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        """Checks the limits."""
        if not 1 <= self.row_group_rows <= MAX_ROW_GROUP_ROWS:
            raise ArchiveError(f"row group rows: {self.row_group_rows} is not between 1 and {MAX_ROW_GROUP_ROWS}")
        if self.rows < 1 or self.bytes < 1 or self.row_group_bytes < 1:
            raise ArchiveError("shard limits: rows and bytes must be at least 1")


def group_rows(sizes_and_splits: Iterable[tuple[int, str]], limits: ShardLimits) -> Iterator[tuple[int, int]]:
    """Divides the rows of a shard into row groups of one split each, within the limits.

    Args:
        sizes_and_splits: Encoded bytes and split of each row, in order.
        limits: Limits of the row groups.

    Yields:
        Start and end row of each group, the end exclusive.
    """
    start = end = taken = 0
    current: str | None = None
    for size, split in sizes_and_splits:
        full = end - start >= limits.row_group_rows or taken + size > limits.row_group_bytes
        if end > start and (full or split != current):
            yield start, end
            start, taken = end, 0
        current = split
        taken += size
        end += 1
    if end > start:
        yield start, end


def encode_shard(path: str, rows: Sequence[dict[str, Any]], limits: ShardLimits) -> tuple[bytes, Shard]:
    """Writes rows of one category as a Parquet file.

    Encoded images are stored unchanged. The image column is compressed only if a row has an uncompressed format: JPEG
    and PNG do not shrink. All other columns are compressed. The same rows give the same bytes.

    Args:
        path: Path of the shard within the archive.
        rows: At least one row; keys are the columns of schema `image`.
        limits: Limits of the row groups.

    Returns:
        The file's bytes and its entry in the manifest.

    Raises:
        ArchiveError: A row does not fit the schema.
    """
    schema = dataset_schema("image")
    sizes = [(len(row["image"]), row["split"]) for row in rows]
    members = [rows[start:end] for start, end in group_rows(sizes, limits)]
    tables = [schema.table({name: [row[name] for row in group] for name in schema.arrow.names}) for group in members]
    return _encode_groups(path, rows[0]["category"], tables, [group[0]["split"] for group in members])


def encode_rows(path: str, category: str, table: pa.Table, limits: ShardLimits) -> tuple[bytes, Shard]:
    """Writes rows that other shards have held as a shard; see `encode_shard`.

    Args:
        path: Path of the shard within the archive.
        category: Category of the rows.
        table: At least one row of schema `image`; rows of the same split lie together.
        limits: Limits of the row groups.

    Returns:
        The file's bytes and its entry in the manifest.
    """
    sizes = pc.binary_length(table.column("image")).to_pylist()
    splits = table.column("split").to_pylist()
    groups = list(group_rows(zip(sizes, splits, strict=True), limits))
    tables = [table.slice(start, end - start) for start, end in groups]
    return _encode_groups(path, category, tables, [splits[start] for start, _ in groups])


def rewrite_shard(archive: Location, entry: Shard, without: Collection[str]) -> tuple[bytes, Shard] | None:
    """Encodes a shard again without some of its rows.

    Row groups keep their numbers, from which the names of all derived files follow; some may be empty. The same rows
    give the same bytes, so that an interrupted deletion can be repeated.

    Args:
        archive: Root of the archive.
        entry: The shard in the manifest; the file may have fewer rows already.
        without: Keys of the rows to leave out.

    Returns:
        The file's bytes and its entry in the manifest; None if no row is left, or the file is gone.

    Raises:
        ArchiveError: The file is corrupt.
    """
    location, schema = archive / entry.path, dataset_schema("image")
    if not location.exists():
        return None
    dropped = pa.array(sorted(without), pa.string())
    with open_parquet(location) as file:
        schema.check_columns(file.schema_arrow, source=location.uri)
        if pc.all(pc.is_in(file.read(columns=["row_key"]).column(0), value_set=dropped)).as_py():
            return None
        groups = []
        for index in range(file.num_row_groups):
            table = schema.complete(file.read_row_group(index))
            groups.append(table.filter(pc.invert(pc.is_in(table.column("row_key"), value_set=dropped))))
    return _encode_groups(entry.path, entry.category, groups, [group.split for group in entry.row_groups])


def _encode_groups(path: str, category: str, tables: Sequence[pa.Table], splits: Sequence[str]) -> tuple[bytes, Shard]:
    """Writes each table, of one split, as a row group of a shard."""
    schema = dataset_schema("image")
    formats = {name for table in tables for name in pc.unique(table.column("format")).to_pylist()}
    options = _writer_options(schema, compress_images=bool(formats & _UNCOMPRESSED_FORMATS))
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema.arrow, **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(table.num_rows, 1))
    data = sink.getvalue()
    labels: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for table, split in zip(tables, splits, strict=True):
        labels.update(f"{split}/{label or 'unknown'}" for label in table.column("label").to_pylist())
        kinds.update(table.column("defect_kind").drop_null().to_pylist())
    entry = Shard(
        path=path,
        category=category,
        row_groups=tuple(
            RowGroup(rows=table.num_rows, split=split) for table, split in zip(tables, splits, strict=True)
        ),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        labels=dict(sorted(labels.items())),
        defect_kinds=dict(sorted(kinds.items())),
    )
    return data, entry


def read_chunk(
    archive: Location, chunk: Chunk, *, columns: Sequence[str] | None = None, may_lack_rows: bool = False
) -> pa.Table:
    """Reads one row group of one shard, with all or some of its columns.

    Args:
        archive: Root of the archive.
        chunk: The row group to read.
        columns: Columns of schema `image`; None reads all.
        may_lack_rows: Whether rows may have been deleted since `chunk` was listed.

    Raises:
        ArchiveError: The shard is corrupt, or does not match the manifest or the schema.
    """
    location = archive / chunk.shard
    with open_parquet(location) as file:
        dataset_schema("image").check_columns(file.schema_arrow, source=location.uri)
        if chunk.row_group >= file.num_row_groups:
            raise ArchiveError(
                f"{location}: has {file.num_row_groups} row groups; the manifest references row group {chunk.row_group}"
            )
        table = file.read_row_group(chunk.row_group, columns=None if columns is None else list(columns))
        table = dataset_schema("image").complete(table, columns)
    if table.num_rows > chunk.rows or (table.num_rows < chunk.rows and not may_lack_rows):
        raise ArchiveError(
            f"{location}: row group {chunk.row_group} has {table.num_rows} rows; the manifest says {chunk.rows}; if a "
            f"deletion was interrupted, `uniad-ray archive delete {archive}` finishes it"
        )
    return table


@contextmanager
def open_parquet(location: Location) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file in any store, for reading by row group.

    Raises:
        ArchiveError: The file is not a Parquet file or is corrupt.
    """
    with location.open_seekable() as handle:
        try:
            yield pq.ParquetFile(handle)
        except (pa.ArrowInvalid, pa.ArrowException) as error:
            raise ArchiveError(f"{location}: corrupt Parquet file ({error}); ingest or score it again") from error


def encode_table(schema: DatasetSchema, table: pa.Table) -> bytes:
    """Writes a small derived table as Parquet; the same rows give the same bytes.

    Raises:
        ArchiveError: The table does not fit the schema.
    """
    return encode_row_groups(schema, [table])


def encode_row_groups(schema: DatasetSchema, tables: Iterable[pa.Table]) -> bytes:
    """Writes each table as one row group of a Parquet file; holds one table at a time.

    Raises:
        ArchiveError: A table does not fit the schema.
    """
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema.arrow, compression="zstd", store_schema=True) as writer:
        for table in tables:
            schema.check(table, source=f"{schema.name} table")
            writer.write_table(table)
    return sink.getvalue()


def read_table(schema: DatasetSchema, location: Location, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a small dataset file, whole or some of its columns, and checks it.

    Raises:
        ArchiveError: The file is corrupt or does not fit the schema.
    """
    with open_parquet(location) as file:
        schema.check_columns(file.schema_arrow, source=location.uri)
        table = schema.complete(file.read(columns=None if columns is None else list(columns)), columns)
    if columns is None:
        schema.check(table, source=location.uri)
    return table


def _writer_options(schema: DatasetSchema, *, compress_images: bool) -> dict[str, Any]:
    leaves = {
        "masks": ["masks.list.element.source_uri", "masks.list.element.mask"],
        "metadata": ["metadata.list.element.name", "metadata.list.element.value"],
    }
    plain = [leaf for name in schema.arrow.names for leaf in leaves.get(name, [name])]
    blobs = {"image", "masks.list.element.mask"}
    compression = dict.fromkeys(plain, "zstd")
    if not compress_images:
        compression["image"] = "none"
    compression["masks.list.element.mask"] = "none"
    return {
        "compression": compression,
        # Statistics of a blob column would store whole images as minimum and maximum.
        "write_statistics": [leaf for leaf in plain if leaf not in blobs],
        "use_dictionary": [leaf for leaf in plain if leaf not in blobs and leaf not in ("row_key", "image_id")],
    }
