"""Where compactions have moved the rows of shards: what names a former shard, such as a run or a night, finds them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.ingest.records import FOLDER, INGEST_NAME, ingest_folder
from uniad_ray.archive.manifest import ArchiveManifest, chunk_name
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import open_parquet, read_table
from uniad_ray.archive.stores.location import Location

PREFIX: Final = "compact-"
"""Names of compactions and of their shards begin with it; those of ingests with a hex digit."""
MOVED_NAME: Final = "moved.parquet"
SCHEMA: Final = "moved_row"
_READ_THREADS: Final = 16


def is_compacted(shard: str) -> bool:
    """Whether a compaction wrote a shard, given by its path."""
    return shard.rpartition("/")[2].startswith(PREFIX)


class Moves:
    """The moves of all finished compactions of an archive."""

    def __init__(self, rows: pa.Table) -> None:
        """Takes rows of schema `moved_row`, those of earlier compactions first."""
        self._rows = rows

    @classmethod
    def read(cls, archive: Location) -> Self:
        """Reads the moves; one listing if nothing was compacted.

        Raises:
            ArchiveError: A record is corrupt.
        """
        listed = {info.relative for info in (archive / FOLDER).list()}
        names = sorted({name.partition("/")[0] for name in listed if name.startswith(PREFIX)})
        finished = [name for name in names if f"{name}/{INGEST_NAME}" in listed]
        schema = dataset_schema(SCHEMA)
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            tables = pool.map(lambda name: read_table(schema, ingest_folder(archive, name) / MOVED_NAME), finished)
            return cls(pa.concat_tables([schema.arrow.empty_table(), *tables]))

    def __len__(self) -> int:
        """Number of moves; a row may have moved several times."""
        return int(self._rows.num_rows)

    def keys_of(self, shards: Iterable[str], row_group: int | None = None) -> pa.Array:
        """Keys of the rows that shards have held, or one of their row groups."""
        own = self._rows.filter(pc.is_in(self._rows.column("from_shard"), value_set=_texts(shards)))
        if row_group is not None:
            own = own.filter(pc.equal(own.column("from_row_group"), row_group))
        return pc.unique(own.column("row_key"))

    def places(self, keys: pa.Array) -> dict[tuple[str, int], set[str]]:
        """Where rows are now: their keys by shard and row group. Rows that were never moved are left out."""
        moved = self._rows.filter(pc.is_in(self._rows.column("row_key"), value_set=keys))
        columns = (moved.column(name).to_pylist() for name in ("row_key", "shard", "row_group"))
        last = {key: (shard, row_group) for key, shard, row_group in zip(*columns, strict=True)}
        found: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        for key, place in last.items():
            found[place].add(key)
        return dict(found)

    def is_from(self, shard: str, known: Collection[str]) -> bool:
        """Whether all rows of a shard come from known shards."""
        if shard in known:
            return True
        origins = set(self._rows.filter(pc.equal(self._rows.column("shard"), shard)).column("from_shard").to_pylist())
        return bool(origins) and all(self.is_from(origin, known) for origin in origins)

    def former_chunks(self, keys: pa.Array) -> set[str]:
        """Names of the chunks that rows have been in before."""
        moved = self._rows.filter(pc.is_in(self._rows.column("row_key"), value_set=keys))
        places = zip(moved.column("from_shard").to_pylist(), moved.column("from_row_group").to_pylist(), strict=True)
        return {chunk_name(shard, row_group) for shard, row_group in places}

    def rows_left(self, archive: Location, manifest: ArchiveManifest) -> dict[str, int]:
        """Number of rows of each former shard that were not deleted since.

        Raises:
            ArchiveError: A shard is corrupt.
        """
        present: set[str] = set()
        for shard in manifest.shards:
            if is_compacted(shard.path):
                with open_parquet(archive / shard.path) as file:
                    present |= set(file.read(columns=["row_key"]).column(0).to_pylist())
        own = self._rows.filter(pc.is_in(self._rows.column("row_key"), value_set=_texts(present)))
        counted = pc.value_counts(own.column("from_shard")).to_pylist()
        return {entry["values"]: entry["counts"] for entry in counted}


def present_shards(archive: Location, manifest: ArchiveManifest, shards: Iterable[str]) -> tuple[str, ...]:
    """The shards of an archive that hold the rows of some shards, each once; other rows may be in them too.

    Args:
        archive: Root of the archive.
        manifest: Its manifest.
        shards: Paths of present and former shards.

    Raises:
        ArchiveError: A record is corrupt.
    """
    listed = {shard.path for shard in manifest.shards}
    wanted = dict.fromkeys(shards)
    gone = [path for path in wanted if path not in listed]
    moved: set[str] = set()
    if gone:
        moves = Moves.read(archive)
        moved = {shard for shard, _ in moves.places(moves.keys_of(gone))}
    return tuple(dict.fromkeys([*(path for path in wanted if path in listed), *sorted(moved & listed)]))


def _texts(values: Iterable[str]) -> pa.Array:
    return pa.array(sorted(set(values)), pa.string())
