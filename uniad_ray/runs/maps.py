"""Encode anomaly maps as bytes, and read and write the map files of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_table
from uniad_ray.archive.stores.location import Location

_ROWS_AT_ONCE = 16
"""Rows converted to Python objects at a time; each holds a whole map."""


@dataclass(frozen=True)
class StoredMap:
    """The map of one scored image.

    Attributes:
        row_key: Key of the image row.
        category: Its category.
        score: Fused score of the image.
        anomaly_map: Float, shape (h, w), on the calibrated scale; float16 if read from a file.
    """

    row_key: str
    category: str
    score: float
    anomaly_map: np.ndarray


def encode_map(anomaly_map: np.ndarray) -> bytes:
    """Encode a map as little-endian float16 in row-major order, clipped to the range of float16.

    Args:
        anomaly_map: Float, shape (h, w).
    """
    limit = float(np.finfo(np.float16).max)
    return bytes(np.clip(anomaly_map, -limit, limit).astype("<f2").tobytes())


def decode_map(data: bytes, height: int, width: int) -> np.ndarray:
    """Decode the bytes of `encode_map` to float16 of shape (height, width)."""
    return np.frombuffer(data, dtype="<f2").reshape(height, width)


def highest(maps: Iterable[StoredMap], most: int) -> list[StoredMap]:
    """Return the maps of the `most` highest scores, highest first; ties are ordered by row key."""
    return sorted(maps, key=lambda entry: (-entry.score, entry.row_key))[:most]


def write_maps(location: Location, maps: Sequence[StoredMap]) -> None:
    """Write a file of maps in the given order."""
    schema = dataset_schema("anomaly_map")
    columns = {
        "row_key": [entry.row_key for entry in maps],
        "category": [entry.category for entry in maps],
        "score": [entry.score for entry in maps],
        "height": [entry.anomaly_map.shape[0] for entry in maps],
        "width": [entry.anomaly_map.shape[1] for entry in maps],
        "map": [encode_map(entry.anomaly_map) for entry in maps],
    }
    location.write_bytes(encode_table(schema, schema.table(columns)))


def read_maps(location: Location, row_keys: Collection[str] | None = None) -> list[StoredMap]:
    """Read a file of maps in file order. A missing file gives an empty list.

    Args:
        location: The file.
        row_keys: Rows to read; None reads all.

    Raises:
        ArchiveError: The file is corrupt.
        StoreError: The store cannot be read.
    """
    if not location.exists():
        return []
    table = read_table(dataset_schema("anomaly_map"), location)
    if row_keys is not None:
        table = table.filter(pc.is_in(table.column("row_key"), value_set=pa.array(sorted(row_keys), pa.string())))
    return [
        StoredMap(row["row_key"], row["category"], row["score"], decode_map(row["map"], row["height"], row["width"]))
        for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE)
        for row in batch.to_pylist()
    ]
