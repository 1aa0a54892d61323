from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.data_set_trees import visa_tree
from support.trees import loco_tree, mask_png, mvtec_tree, png, write

from uniad_ray.archive.images import ImageLimits
from uniad_ray.archive.ingest import build_shard, plan_ingest, read_planned_shard
from uniad_ray.archive.layouts import Rejected, SourceImage, open_source, row_key
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError


def source_image(index: int, *, category: str = "c", size: int = 10, split: str = "train") -> SourceImage:
    return SourceImage(
        row_key(category, f"{split}{index}"), f"/s/{category}/{index}", size, category, split, None, None, None
    )


@given(
    files=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 50), st.sampled_from(["test", "train"])), max_size=50
    ),
    rows=st.integers(1, 7),
    most_bytes=st.integers(1, 120),
)
def test_shards_hold_each_file_once_within_limits(
    files: list[tuple[str, int, str]], rows: int, most_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    images = [
        source_image(index, category=category, size=size, split=split)
        for index, (category, size, split) in enumerate(files)
    ]
    plan = plan_ingest(images, limits=ShardLimits(rows=rows, bytes=most_bytes))
    path = tmp_path_factory.mktemp("plan") / "plan.parquet"
    path.write_bytes(plan.data)
    shards = [read_planned_shard(Location.parse(path), index) for index in range(len(plan.shards))]
    assert sorted(entry["row_key"] for shard in shards for entry in shard) == sorted(image.row_key for image in images)
    assert len(set(plan.shards)) == len(plan.shards)
    for name, shard in zip(plan.shards, shards, strict=True):
        assert len({entry["category"] for entry in shard}) == 1
        assert {entry["shard"] for entry in shard} == {name}
        assert len(shard) <= rows
        assert len(shard) == 1 or sum(entry["source_bytes"] for entry in shard) <= most_bytes


def test_plan_depends_only_on_the_listing() -> None:
    images = [source_image(index) for index in range(5)]
    limits = ShardLimits()
    assert plan_ingest(images, limits=limits) == plan_ingest(images, limits=limits)
    assert plan_ingest(images, limits=limits).ingest_id != plan_ingest(images[:4], limits=limits).ingest_id
    grown = [*images[:4], source_image(4, size=11)]
    assert plan_ingest(images, limits=limits).ingest_id != plan_ingest(grown, limits=limits).ingest_id


def test_known_rows_are_skipped_and_changed_ones_refused() -> None:
    images = [source_image(index) for index in range(3)]
    known = {images[0].row_key: 10, images[1].row_key: 999}
    plan = plan_ingest(images, limits=ShardLimits(), known_rows=known)
    assert plan.images == 1
    assert [entry.source_uri for entry in plan.rejected] == [images[1].uri]
    assert "changed since it was ingested" in plan.rejected[0].reason


def test_duplicate_row_keys_are_refused() -> None:
    with pytest.raises(ArchiveError, match="second file has the same category and path"):
        plan_ingest([source_image(1), source_image(1)], limits=ShardLimits())


def test_rejected_names_are_kept() -> None:
    plan = plan_ingest([Rejected("/s/a.txt", "no image")], limits=ShardLimits())
    assert plan.shards == ()
    assert plan.rejected == (Rejected("/s/a.txt", "no image"),)


def build(root: Path, tmp_path: Path, *, delete: str | None = None) -> object:
    source = open_source(Location.parse(root))
    plan = plan_ingest(source.entries(), limits=ShardLimits())
    (tmp_path / "plan.parquet").write_bytes(plan.data)
    planned = read_planned_shard(Location.parse(tmp_path / "plan.parquet"), 0)
    if delete:
        (root / delete).unlink()
    return build_shard(
        planned, defects=source.defects.get(root.name), image_limits=ImageLimits(), shard_limits=ShardLimits()
    )[1]


def test_non_images_are_recorded_with_the_reason(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=3, good=0, bad=0)
    write(root / "train/good/100.png", b"this is text")
    write(root / "train/good/101.png", b"")
    record = build(root, tmp_path, delete="train/good/002.png")
    assert record.shard.rows == 2  # type: ignore[attr-defined]
    reasons = {Path(entry.source_uri).name: entry.reason for entry in record.rejected}  # type: ignore[attr-defined]
    assert reasons["100.png"].startswith("not_an_image: ")
    assert reasons["101.png"].startswith("empty: ")
    assert reasons["002.png"] == "deleted since the source was listed"


def test_mask_grey_values_name_the_defects(tmp_path: Path) -> None:
    record = build(loco_tree(tmp_path / "box"), tmp_path)
    assert record.shard.defect_kinds == {"extra+missing": 1, "scratch": 1}  # type: ignore[attr-defined]


def test_shard_without_images_is_recorded(tmp_path: Path) -> None:
    write(tmp_path / "x/a.png", b"no image")
    record = build(tmp_path / "x", tmp_path)
    assert record.shard is None  # type: ignore[attr-defined]
    assert len(record.rejected) == 1  # type: ignore[attr-defined]


def test_image_bytes_and_size_match_the_file(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=0)
    source = open_source(Location.parse(root))
    plan = plan_ingest(source.entries(), limits=ShardLimits())
    (tmp_path / "plan.parquet").write_bytes(plan.data)
    planned = read_planned_shard(Location.parse(tmp_path / "plan.parquet"), 0)
    data, _ = build_shard(planned, defects=None, image_limits=ImageLimits(), shard_limits=ShardLimits())
    assert data is not None
    (tmp_path / "shard.parquet").write_bytes(data)
    rows = pq.read_table(tmp_path / "shard.parquet").to_pylist()
    assert rows[0]["image"] == png(0)
    assert (rows[0]["width"], rows[0]["height"], rows[0]["format"]) == (48, 48, "PNG")


def test_the_capture_time_is_kept(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8))
    exif = picture.getexif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:21 22:15:00"
    (tmp_path / "x").mkdir()
    picture.save(tmp_path / "x/a.jpg", exif=exif)
    source = open_source(Location.parse(tmp_path / "x"))
    plan = plan_ingest(source.entries(), limits=ShardLimits())
    (tmp_path / "plan.parquet").write_bytes(plan.data)
    planned = read_planned_shard(Location.parse(tmp_path / "plan.parquet"), 0)
    data, _ = build_shard(planned, defects=None, image_limits=ImageLimits(), shard_limits=ShardLimits())
    assert data is not None
    assert pq.read_table(io.BytesIO(data)).column("captured_at").to_pylist() == ["2026-11-21T22:15:00"]


def test_visa_rows_keep_mask_bytes_and_table_defects(tmp_path: Path) -> None:
    root = visa_tree(tmp_path / "visa")
    plan = plan_ingest(open_source(Location.parse(root)).entries(), limits=ShardLimits())
    (tmp_path / "plan.parquet").write_bytes(plan.data)
    planned = read_planned_shard(Location.parse(tmp_path / "plan.parquet"), 0)
    data, record = build_shard(planned, defects=None, image_limits=ImageLimits(), shard_limits=ShardLimits())
    assert data is not None
    assert record.shard is not None
    assert record.shard.labels == {"test/anomalous": 1, "test/normal": 1, "train/normal": 1}
    assert record.shard.defect_kinds == {"bent+melded": 1}
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    uri = f"{root}/candle/Data/Masks/Anomaly/000.png"
    assert [row["masks"] for row in rows if row["masks"]] == [[{"source_uri": uri, "mask": mask_png(value=3)}]]
