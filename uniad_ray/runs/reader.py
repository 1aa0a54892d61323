"""Read a finished run: score rows, maps and timings, and the images and masks of its archive."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.ingest.moves import Moves
from uniad_ray.archive.manifest import Chunk, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import read_chunk, read_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ObjectNotFoundError, RunError
from uniad_ray.runs.maps import read_maps
from uniad_ray.runs.parts import Part, read_parts
from uniad_ray.runs.plan import (
    CHUNKS_NAME,
    RunChunk,
    RunManifest,
    maps_path,
    read_run,
    scores_path,
    top_maps_path,
)
from uniad_ray.runs.timings import Timing, read_timings

_READ_THREADS = 16
_PLACE_COLUMNS = ("row_key", "shard", "row_group", "split", "category")


@dataclass(frozen=True)
class MaskFile:
    """One ground-truth mask, encoded as ingested."""

    source_uri: str
    data: bytes


@dataclass(frozen=True)
class SourceRow:
    """The archive row of one scored image.

    Attributes:
        image: The encoded file; None if not requested.
        masks: Its ground-truth masks.
        width: Displayed width, pixels.
        height: Displayed height, pixels.
    """

    image: bytes | None
    masks: tuple[MaskFile, ...]
    width: int
    height: int


class RunReader:
    """A finished run.

    Attributes:
        location: Root of the run.
        manifest: Its manifest.
        archive: Root of the scored archive.
        chunks: Its chunks in archive order.
    """

    def __init__(self, run: str | Location) -> None:
        """Read the manifest and the list of chunks.

        Raises:
            RunError: There is no run, or it is unfinished or corrupt.
        """
        self.location = run if isinstance(run, Location) else Location.parse(run)
        self.manifest: RunManifest = read_run(self.location)
        self.archive = Location.parse(self.manifest.plan.archive)
        location = self.location / CHUNKS_NAME
        if hashlib.sha256(location.read_bytes()).hexdigest() != self.manifest.chunks_sha256:
            raise RunError(f"{location}: checksum mismatch: the file is corrupt; score again with another --out")
        rows = read_table(dataset_schema("run_chunk"), location).to_pylist()
        self.chunks = tuple(RunChunk(**{**row, "in_review": row["in_review"] or 0}) for row in rows)

    def scores(self, columns: Sequence[str] | None = None, *, categories: Collection[str] | None = None) -> pa.Table:
        """Return score rows in archive order.

        Args:
            columns: Columns of schema `score`; None returns all.
            categories: Categories to return; None returns all.

        Raises:
            ArchiveError: A file of the run is corrupt.
            StoreError: A file of the run is missing.
        """
        wanted = [chunk for chunk in self.chunks if categories is None or chunk.category in categories]
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            tables = list(pool.map(lambda chunk: self.chunk_scores(chunk, columns), wanted))
        if tables:
            return pa.concat_tables(tables)
        empty = dataset_schema("score").arrow.empty_table()
        return empty if columns is None else empty.select(list(columns))

    def chunk_scores(self, chunk: RunChunk, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the score rows of one chunk."""
        return read_table(dataset_schema("score"), self.location / scores_path(chunk.chunk), columns=columns)

    def maps(self, category: str, row_keys: Collection[str]) -> dict[str, np.ndarray]:
        """Return the maps of some rows of a category: float16, shape (h, w), on the calibrated scale.

        Rows without a stored map are absent.
        """
        kept = self.manifest.plan.options.maps
        if kept == "none" or not row_keys:
            return {}
        if kept == "top":
            own = (chunk.chunk for chunk in self.chunks if chunk.category == category)
            paths = {top_maps_path(name.split("/")[0]) for name in itertools.islice(own, 1)}
        else:
            paths = {maps_path(chunk.chunk) for chunk, _ in self._chunks_of(category, row_keys)}
        found: dict[str, np.ndarray] = {}
        for path in sorted(paths):
            found.update(self._read_maps(path, set(row_keys)))
        return found

    def chunk_maps(self, chunk: RunChunk) -> dict[str, np.ndarray]:
        """Return the maps of all rows of one chunk, for a run that keeps all maps."""
        return self._read_maps(maps_path(chunk.chunk), None)

    def images(self, category: str, row_keys: Collection[str]) -> dict[str, SourceRow]:
        """Return the encoded images and masks of some rows of a category; deleted images are absent.

        Raises:
            ArchiveError: The archive is missing or corrupt.
            StoreError: A shard cannot be read.
        """
        found: dict[str, SourceRow] = {}
        for chunk, keys in self._chunks_of(category, row_keys):
            found.update((key, row) for key, row in self.source_rows(chunk, with_images=True) if key in keys)
        return found

    def source_rows(self, chunk: RunChunk, *, with_images: bool) -> Iterator[tuple[str, SourceRow]]:
        """Yield the row key and archive row of every row of one chunk that was not deleted since.

        Raises:
            ArchiveError: The archive is missing or corrupt.
            StoreError: A shard cannot be read.
        """
        columns = ["row_key", "masks", "width", "height", *(["image"] if with_images else [])]
        place = self._archive_chunk(chunk)
        try:
            tables = [read_chunk(self.archive, place, columns=columns, may_lack_rows=True)]
        except ObjectNotFoundError:
            if any(shard.path == place.shard for shard in read_manifest(self.archive).shards):
                raise
            # A compaction has moved its images, or all were deleted.
            tables = list(self._moved(place, columns))
        for row in (row for table in tables for row in _rows(table)):
            masks = tuple(MaskFile(mask["source_uri"], mask["mask"]) for mask in row["masks"])
            yield row["row_key"], SourceRow(row.get("image"), masks, row["width"], row["height"])

    def parts(self) -> list[Part]:
        """Return the verdicts of the parts, sorted by serial; empty if the images have no serials."""
        return read_parts(self.location)

    def timings(self) -> list[Timing]:
        """Return the timings of the completed executions, oldest first."""
        return read_timings(self.location)

    @cached_property
    def _moves(self) -> Moves:
        return Moves.read(self.archive)

    def _moved(self, place: Chunk, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of a chunk whose shard is gone, where they are now."""
        shards = {shard.path: shard for shard in read_manifest(self.archive).shards}
        found = self._moves.places(self._moves.keys_of([place.shard], place.row_group))
        for (path, row_group), keys in sorted(found.items()):
            if path in shards and (rows := shards[path].row_groups[row_group].rows):
                chunk = Chunk(path, row_group, rows, place.category, place.split)
                table = read_chunk(self.archive, chunk, columns=columns, may_lack_rows=True)
                yield table.filter(pc.is_in(table.column("row_key"), value_set=pa.array(sorted(keys), pa.string())))

    def _archive_chunk(self, chunk: RunChunk) -> Chunk:
        place = self.chunk_scores(chunk, _PLACE_COLUMNS).slice(0, 1).to_pylist()[0]
        return Chunk(place["shard"], place["row_group"], chunk.rows, place["category"], place["split"])

    def _chunks_of(self, category: str, row_keys: Collection[str]) -> list[tuple[RunChunk, set[str]]]:
        """The chunks of a category that contain any of the rows, each with those rows."""
        wanted = pa.array(sorted(row_keys), type=pa.string())
        own = [chunk for chunk in self.chunks if chunk.category == category]

        def keys_of(chunk: RunChunk) -> set[str]:
            keys = self.chunk_scores(chunk, ["row_key"]).column("row_key")
            return set(keys.filter(pc.is_in(keys, value_set=wanted)).to_pylist())

        with ThreadPoolExecutor(_READ_THREADS) as pool:
            held = list(pool.map(keys_of, own))
        return [(chunk, keys) for chunk, keys in zip(own, held, strict=True) if keys]

    def _read_maps(self, path: str, row_keys: set[str] | None) -> dict[str, np.ndarray]:
        return {entry.row_key: entry.anomaly_map for entry in read_maps(self.location / path, row_keys)}


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield rows as dictionaries, converted in small batches because a row may hold a whole image."""
    for batch in table.to_batches(max_chunksize=16):
        yield from batch.to_pylist()
