"""Reads a finished run: its score rows, its maps, its attempts, and the images and masks behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.naming import safe_segment
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import read_chunk, read_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import RunError
from uniad_ray.runs.maps import read_maps
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
    """One ground-truth mask as it was ingested."""

    source_uri: str
    data: bytes


@dataclass(frozen=True)
class SourceRow:
    """What the archive holds of one scored image.

    Attributes:
        image: The encoded file; None where it was not asked for.
        masks: Its ground-truth masks.
        width: Pixels, as displayed.
        height: Pixels, as displayed.
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
        archive: Root of the archive that was scored.
        chunks: Its chunks, in the archive's order.
    """

    def __init__(self, run: str | Location) -> None:
        """Reads manifest and list of chunks.

        Raises:
            RunError: There is no run, it is not finished, or it is damaged.
        """
        self.location = run if isinstance(run, Location) else Location.parse(run)
        self.manifest: RunManifest = read_run(self.location)
        self.archive = Location.parse(self.manifest.plan.archive)
        location = self.location / CHUNKS_NAME
        if hashlib.sha256(location.read_bytes()).hexdigest() != self.manifest.chunks_sha256:
            raise RunError(f"{location}: not what the run's manifest says; score again with another --out")
        rows = read_table(dataset_schema("run_chunk"), location).to_pylist()
        self.chunks = tuple(RunChunk(**row) for row in rows)

    def scores(self, columns: Sequence[str] | None = None, *, categories: Collection[str] | None = None) -> pa.Table:
        """Score rows in the archive's order.

        Args:
            columns: Columns of schema `score`; None gives all.
            categories: Only of these categories; None gives all.

        Raises:
            ArchiveError: A file of the run is damaged.
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
        """Score rows of one chunk."""
        return read_table(dataset_schema("score"), self.location / scores_path(chunk.chunk), columns=columns)

    def maps(self, category: str, row_keys: Collection[str]) -> dict[str, np.ndarray]:
        """Maps of some rows of one category, float16, shape (h, w), on the calibrated scale.

        Rows whose map was not kept are absent.
        """
        kept = self.manifest.plan.options.maps
        if kept == "none" or not row_keys:
            return {}
        if kept == "top":
            paths = {top_maps_path(safe_segment(category))}
        else:
            paths = {maps_path(chunk.chunk) for chunk, _ in self._chunks_of(category, row_keys)}
        found: dict[str, np.ndarray] = {}
        for path in sorted(paths):
            found.update(self._read_maps(path, set(row_keys)))
        return found

    def chunk_maps(self, chunk: RunChunk) -> dict[str, np.ndarray]:
        """Maps of all rows of one chunk, in a run that keeps all maps."""
        return self._read_maps(maps_path(chunk.chunk), None)

    def images(self, category: str, row_keys: Collection[str]) -> dict[str, SourceRow]:
        """Encoded images and masks of some rows of one category.

        Raises:
            ArchiveError: The archive is gone or damaged.
            StoreError: A shard cannot be read.
        """
        found: dict[str, SourceRow] = {}
        for chunk, keys in self._chunks_of(category, row_keys):
            found.update((key, row) for key, row in self.source_rows(chunk, with_images=True) if key in keys)
        return found

    def source_rows(self, chunk: RunChunk, *, with_images: bool) -> Iterator[tuple[str, SourceRow]]:
        """What the archive holds of the rows of one chunk.

        Raises:
            ArchiveError: The archive is gone or damaged.
            StoreError: A shard cannot be read.
        """
        columns = ["row_key", "masks", "width", "height", *(["image"] if with_images else [])]
        table = read_chunk(self.archive, self._archive_chunk(chunk), columns=columns)
        for row in _rows(table):
            masks = tuple(MaskFile(mask["source_uri"], mask["mask"]) for mask in row["masks"])
            yield row["row_key"], SourceRow(row.get("image"), masks, row["width"], row["height"])

    def timings(self) -> list[Timing]:
        """What the attempts that came to their end spent on each stage, oldest first."""
        return read_timings(self.location)

    def _archive_chunk(self, chunk: RunChunk) -> Chunk:
        place = self.chunk_scores(chunk, _PLACE_COLUMNS).slice(0, 1).to_pylist()[0]
        return Chunk(place["shard"], place["row_group"], chunk.rows, place["category"], place["split"])

    def _chunks_of(self, category: str, row_keys: Collection[str]) -> list[tuple[RunChunk, set[str]]]:
        """The chunks of a category that hold some rows, with the rows they hold."""
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
    """Rows as dictionaries, a few at a time, since a row may hold a whole image."""
    for batch in table.to_batches(max_chunksize=16):
        yield from batch.to_pylist()
