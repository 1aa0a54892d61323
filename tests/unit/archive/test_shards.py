from __future__ import annotations

import hashlib
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import png

from uniad_ray.archive.manifest import Chunk, chunks
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import ShardLimits, encode_shard, group_rows, read_chunk, read_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError


def row(index: int, *, split: str = "train", data: bytes | None = None) -> dict[str, Any]:
    image = data if data is not None else png(index)
    return {
        "row_key": f"{index:032d}",
        "image_id": hashlib.sha256(image).hexdigest(),
        "image": image,
        "source_uri": f"/source/{index}.png",
        "category": "bottle",
        "split": split,
        "label": "normal" if split == "train" else None,
        "defect_kind": None,
        "anomaly_type": None,
        "masks": [],
        "format": "PNG",
        "width": 48,
        "height": 48,
        "captured_at": None,
        "metadata": [],
    }


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["train", "test"])), max_size=60),
    st.integers(1, 8),
    st.integers(1, 100),
)
def test_row_groups_cover_all_rows_within_limits(rows: list[tuple[int, str]], most_rows: int, most_bytes: int) -> None:
    limits = ShardLimits(row_group_rows=most_rows, row_group_bytes=most_bytes)
    groups = list(group_rows(rows, limits))
    assert [index for start, end in groups for index in range(start, end)] == list(range(len(rows)))
    for start, end in groups:
        members = rows[start:end]
        assert 1 <= len(members) <= most_rows
        assert len({split for _, split in members}) == 1
        assert len(members) == 1 or sum(size for size, _ in members) <= most_bytes
    for (start, _), (next_start, next_end) in pairwise(groups):
        joined = rows[start:next_start] + rows[next_start : next_start + 1]
        could_have_taken_one_more = (
            len(joined) <= most_rows
            and len({split for _, split in joined}) == 1
            and sum(size for size, _ in joined) <= most_bytes
        )
        assert not could_have_taken_one_more or next_end == next_start


def test_image_bytes_are_stored_unchanged(tmp_path: Path) -> None:
    rows = [row(index) for index in range(5)]
    data, entry = encode_shard("images/bottle/a.parquet", rows, ShardLimits(row_group_rows=2))
    (tmp_path / "images/bottle").mkdir(parents=True)
    (tmp_path / "images/bottle/a.parquet").write_bytes(data)
    assert [group.rows for group in entry.row_groups] == [2, 2, 1]
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    table = read_chunk(Location.parse(tmp_path), Chunk("images/bottle/a.parquet", 1, 2, "bottle", "train"))
    assert table.column("image").to_pylist() == [rows[2]["image"], rows[3]["image"]]
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(2)
    assert column.path_in_schema == "image"
    assert column.compression == "UNCOMPRESSED"
    assert not column.is_stats_set
    assert len(data) < sum(len(item["image"]) for item in rows) + 20_000


def test_shard_of_the_former_version_is_read_with_empty_metadata(tmp_path: Path) -> None:
    data, _ = encode_shard("images/bottle/a.parquet", [row(0), row(1)], ShardLimits())
    old = pq.read_table(io.BytesIO(data)).drop_columns("metadata")
    old = old.replace_schema_metadata({"uniad_ray.schema": "image", "uniad_ray.schema_version": "1"})
    (tmp_path / "images/bottle").mkdir(parents=True)
    pq.write_table(old, tmp_path / "images/bottle/a.parquet")
    chunk = Chunk("images/bottle/a.parquet", 0, 2, "bottle", "train")
    archive = Location.parse(tmp_path)
    assert read_chunk(archive, chunk, columns=["row_key", "metadata"]).to_pylist() == [
        {"row_key": row(index)["row_key"], "metadata": []} for index in range(2)
    ]
    assert read_chunk(archive, chunk).column_names == dataset_schema("image").arrow.names
    assert read_chunk(archive, chunk, columns=["row_key"]).column_names == ["row_key"]


def test_scores_of_the_former_version_are_read_with_empty_columns(tmp_path: Path) -> None:
    schema = dataset_schema("score")
    new = {"left_out", "metadata"}
    fields = [entry for entry in schema.arrow if entry.name not in new]
    row = {entry.name: [] if pa.types.is_list(entry.type) else None for entry in fields} | {"row_key": "k"}
    metadata = {"uniad_ray.schema": "score", "uniad_ray.schema_version": "1"}
    row |= {
        entry.name: 0 if pa.types.is_integer(entry.type) else 0.5 if pa.types.is_floating(entry.type) else "x"
        for entry in fields
        if not entry.nullable and row[entry.name] is None
    }
    pq.write_table(pa.Table.from_pylist([row], pa.schema(fields, metadata)), tmp_path / "a.parquet")
    found = read_table(schema, Location.parse(tmp_path / "a.parquet"))
    assert found.column_names == schema.arrow.names
    assert found.select(sorted(new)).to_pylist() == [{"left_out": [], "metadata": []}]
    some = read_table(schema, Location.parse(tmp_path / "a.parquet"), columns=["row_key", "left_out", "reasons"])
    assert some.column_names == ["row_key", "left_out", "reasons"]


def test_missing_column_of_the_present_version_is_refused(tmp_path: Path) -> None:
    data, _ = encode_shard("images/bottle/a.parquet", [row(0)], ShardLimits())
    (tmp_path / "images/bottle").mkdir(parents=True)
    pq.write_table(pq.read_table(io.BytesIO(data)).drop_columns("metadata"), tmp_path / "images/bottle/a.parquet")
    with pytest.raises(ArchiveError, match="are not those of schema image version 2"):
        read_chunk(Location.parse(tmp_path), Chunk("images/bottle/a.parquet", 0, 1, "bottle", "train"))


def test_uncompressed_formats_are_compressed() -> None:
    bitmap = {**row(0, data=b"\0" * 100_000), "format": "BMP"}
    data, _ = encode_shard("images/bottle/a.parquet", [bitmap], ShardLimits())
    assert len(data) < 20_000


def test_equal_rows_give_equal_bytes() -> None:
    rows = [row(index) for index in range(3)]
    assert encode_shard("a", rows, ShardLimits())[0] == encode_shard("a", rows, ShardLimits())[0]


def test_rows_must_match_the_schema() -> None:
    with pytest.raises(ArchiveError, match="row_key holds nulls"):
        encode_shard("a", [{**row(0), "row_key": None}], ShardLimits())
    with pytest.raises(ArchiveError, match="schema image"):
        encode_shard("a", [{**row(0), "width": "wide"}], ShardLimits())


def test_reading_checks_schema_and_row_count(tmp_path: Path) -> None:
    data, _ = encode_shard("a.parquet", [row(0)], ShardLimits())
    (tmp_path / "a.parquet").write_bytes(data)
    root = Location.parse(tmp_path)
    with pytest.raises(ArchiveError, match="has 1 rows; the manifest says 2"):
        read_chunk(root, Chunk("a.parquet", 0, 2, "bottle", "train"))
    with pytest.raises(ArchiveError, match="has 1 row groups"):
        read_chunk(root, Chunk("a.parquet", 3, 1, "bottle", "train"))
    schema = dataset_schema("metric")
    pq.write_table(schema.arrow.empty_table(), tmp_path / "b.parquet")
    with pytest.raises(ArchiveError, match="are not those of schema image"):
        read_chunk(root, Chunk("b.parquet", 0, 1, "bottle", "train"))
    (tmp_path / "c.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(ArchiveError, match="corrupt Parquet"):
        read_chunk(root, Chunk("c.parquet", 0, 1, "bottle", "train"))


def test_chunk_names_are_unique_and_stable() -> None:
    _, first = encode_shard("images/a/x-00000.parquet", [row(i) for i in range(4)], ShardLimits(row_group_rows=2))
    _, second = encode_shard("images/b/x-00000.parquet", [row(i) for i in range(4)], ShardLimits(row_group_rows=2))
    from uniad_ray.archive.manifest import build_manifest

    manifest = build_manifest(schema_version=1, shards=[second, first], rejected=[], defects={}, ingests=["i"])
    names = [chunk.name for chunk in chunks(manifest)]
    assert names == ["a/x-00000-00000", "a/x-00000-00001", "b/x-00000-00000", "b/x-00000-00001"]


@pytest.mark.parametrize("wrong", [{"row_group_rows": 0}, {"row_group_rows": 65}, {"rows": 0}, {"bytes": 0}])
def test_limits_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ArchiveError):
        ShardLimits(**wrong)
