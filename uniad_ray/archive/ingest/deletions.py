"""The record of deleted images: who deleted what and why, by digests. It never holds pixels.

deletions/<deletion>.parquet   the images to delete, written first
deletions/<deletion>.json      written last: the images are gone
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_table
from uniad_ray.archive.stores.location import Location

FOLDER: Final = "deletions"
SCHEMA: Final = "deletion"


@dataclass(frozen=True)
class DeletedRow:
    """One deleted image; the fields are the first columns of schema `deletion`."""

    row_key: str
    image_id: str
    mask_ids: tuple[str, ...]
    category: str
    source_uri: str
    shard: str


def write_deletion(archive: Location, rows: Sequence[DeletedRow], *, deleted_by: str, reason: str) -> str:
    """Records what is to be deleted, before anything is.

    Returns:
        The name of the deletion, which sorts by time.
    """
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    names = DeletedRow.__dataclass_fields__
    columns = {name: [getattr(row, name) for row in rows] for name in names}
    constant = {"deleted_by": deleted_by, "reason": reason, "requested_at": now}
    schema = dataset_schema(SCHEMA)
    table = schema.table(columns | {name: [value] * len(rows) for name, value in constant.items()})
    # Users may write at the same time. Unique names avoid conflicts. No condition: it would refuse a repeated request.
    name = f"{now.replace(':', '').replace('+0000', 'Z')}-{uuid.uuid4().hex[:12]}"
    (archive / FOLDER / f"{name}.parquet").write_bytes(encode_table(schema, table))
    return name


def finish_deletion(archive: Location, name: str, shards: int) -> None:
    """Records that all images of a deletion are gone."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    (archive / FOLDER / f"{name}.json").write_json({"finished_at": now, "shards": shards})


def deletions(archive: Location) -> tuple[list[str], list[str]]:
    """Names of all deletions, and of those that were interrupted; both by time."""
    names = [info.relative for info in (archive / FOLDER).list()]
    started = sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))
    return started, [name for name in started if f"{name}.json" not in names]


def read_deletion(archive: Location, name: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads the images of a deletion.

    Raises:
        ArchiveError: The file is corrupt.
    """
    return read_table(dataset_schema(SCHEMA), archive / FOLDER / f"{name}.parquet", columns=columns)


def deleted_contents(
    archive: Location, wanted: Collection[tuple[str, str]]
) -> dict[tuple[str, str], list[tuple[str, tuple[str, ...]]]]:
    """Reads the digests of what was deleted.

    Args:
        archive: Root of the archive.
        wanted: Shards and source URIs.

    Returns:
        For each of them that something was deleted of: sha256 of the image, and of each of its masks.

    Raises:
        ArchiveError: A record is corrupt.
    """
    found: defaultdict[tuple[str, str], list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    uris = pa.array(sorted({uri for _, uri in wanted}), pa.string())
    for name in deletions(archive)[0] if len(uris) else ():
        table = read_deletion(archive, name, columns=["shard", "source_uri", "image_id", "mask_ids"])
        for row in table.filter(pc.is_in(table.column("source_uri"), value_set=uris)).to_pylist():
            place = (row["shard"], row["source_uri"])
            if place in wanted:
                found[place].append((row["image_id"], tuple(row["mask_ids"])))
    return dict(found)
