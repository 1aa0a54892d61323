"""Encoding of anomaly maps, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from uniad_ray.archive.stores.location import Location
from uniad_ray.runs.maps import StoredMap, decode_map, encode_map, highest, read_maps, write_maps


@given(arrays(np.float32, (3, 5), elements=st.floats(-1e6, 1e6, width=32)))
def test_map_is_clipped_to_float16(anomaly_map: np.ndarray) -> None:
    restored = decode_map(encode_map(anomaly_map), 3, 5)
    assert restored.dtype == np.float16
    assert np.array_equal(restored, np.clip(anomaly_map, -65504, 65504).astype(np.float16))


def test_bytes_are_little_endian_halves_row_by_row() -> None:
    # 1 is 0x3c00, -2 is 0xc000, and the largest float16 is 0x7bff.
    assert encode_map(np.array([[1.0, -2.0], [0.0, 1e9]], np.float32)) == bytes.fromhex("003c 00c0 0000 ff7b")


def stored(name: str, score: float, size: tuple[int, int] = (2, 3)) -> StoredMap:
    return StoredMap(name, "part", score, np.full(size, score, np.float32))


def test_maps_round_trip_in_order(tmp_path: Path) -> None:
    location = Location.parse(str(tmp_path)) / "maps.parquet"
    assert read_maps(location) == []
    maps = [stored("b", 0.5), stored("a", 2.0, (4, 1)), stored("c", 1.0)]
    write_maps(location, maps)
    found = read_maps(location)
    assert [(entry.row_key, entry.category, entry.score) for entry in found] == [
        ("b", "part", 0.5),
        ("a", "part", 2.0),
        ("c", "part", 1.0),
    ]
    for entry, wanted in zip(found, maps, strict=True):
        assert entry.anomaly_map.dtype == np.float16
        assert np.array_equal(entry.anomaly_map, wanted.anomaly_map)
    assert [entry.row_key for entry in read_maps(location, {"c", "b", "other"})] == ["b", "c"]
    assert read_maps(location, ()) == []


def test_highest_orders_ties_by_row_key() -> None:
    maps = [stored("c", 1.0), stored("b", 2.0), stored("a", 2.0), stored("d", 3.0)]
    assert [entry.row_key for entry in highest(maps, 3)] == ["d", "a", "b"]
