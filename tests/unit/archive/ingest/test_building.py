from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.data_set_trees import visa_tree
from support.trees import loco_tree, mask_png, mvtec_tree, png, write

from uniad_ray.archive.images import ImageLimits
from uniad_ray.archive.ingest import ShardRecord, build_shard, plan_ingest, read_planned_shard
from uniad_ray.archive.ingest import building as building_module
from uniad_ray.archive.layouts import open_source
from uniad_ray.archive.layouts.entries import changed_key
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ObjectDeniedError, StoreError


def planned(root: Path, tmp_path: Path, **known: list[str]) -> list[dict[str, Any]]:
    """The planned files of the only shard of a source; `known` replaces columns of each."""
    plan = plan_ingest(open_source(Location.parse(root)).entries(), limits=ShardLimits())
    (tmp_path / "plan.parquet").write_bytes(plan.data)
    return [entry | known for entry in read_planned_shard(Location.parse(tmp_path / "plan.parquet"), 0)]


def built(root: Path, entries: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], ShardRecord]:
    """The rows of a shard, and its record."""
    defects = open_source(Location.parse(root)).defects.get(root.name)
    data, record = build_shard(entries, defects=defects, image_limits=ImageLimits(), shard_limits=ShardLimits())
    return pq.read_table(io.BytesIO(data)).to_pylist() if data else [], record


def reasons(record: ShardRecord) -> dict[str, str]:
    return {Path(entry.source_uri).name: entry.reason for entry in (*record.rejected, *record.rejected_masks)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_non_images_are_recorded_with_the_reason(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=3, good=0, bad=0)
    write(root / "train/good/100.png", b"this is text")
    write(root / "train/good/101.png", b"")
    entries = planned(root, tmp_path)
    (root / "train/good/002.png").unlink()
    rows, record = built(root, entries)
    assert len(rows) == 2
    assert (record.images, record.files) == (2, 5)
    found = reasons(record)
    assert found.pop("100.png").startswith("not_an_image: ")
    assert found == {"101.png": "empty: the file is empty", "002.png": "deleted since the source was listed"}


def test_mask_grey_values_name_the_defects(tmp_path: Path) -> None:
    root = loco_tree(tmp_path / "box")
    _, record = built(root, planned(root, tmp_path))
    assert record.shard is not None
    assert record.shard.defect_kinds == {"extra+missing": 1, "scratch": 1}


def test_shard_without_images_is_recorded(tmp_path: Path) -> None:
    write(tmp_path / "x/a.png", b"no image")
    rows, record = built(tmp_path / "x", planned(tmp_path / "x", tmp_path))
    assert (rows, record.shard, len(record.rejected)) == ([], None, 1)


def test_image_bytes_and_size_match_the_file(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=0)
    (row,), _ = built(root, planned(root, tmp_path))
    assert row["image"] == png(0)
    assert (row["width"], row["height"], row["format"]) == (48, 48, "PNG")


def test_the_capture_time_is_kept(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8))
    exif = picture.getexif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:21 22:15:00"
    (tmp_path / "x").mkdir()
    picture.save(tmp_path / "x/a.jpg", exif=exif)
    (row,), _ = built(tmp_path / "x", planned(tmp_path / "x", tmp_path))
    assert row["captured_at"] == "2026-11-21T22:15:00"


def test_visa_rows_keep_mask_bytes_and_table_defects(tmp_path: Path) -> None:
    root = visa_tree(tmp_path / "visa")
    rows, record = built(root, planned(root, tmp_path))
    assert record.shard is not None
    assert record.shard.labels == {"test/anomalous": 1, "test/normal": 1, "train/normal": 1}
    assert record.shard.defect_kinds == {"bent+melded": 1}
    uri = f"{root}/candle/Data/Masks/Anomaly/000.png"
    assert [row["masks"] for row in rows if row["masks"]] == [[{"source_uri": uri, "mask": mask_png(value=3)}]]


class TestMasksThatCannotBeUsed:
    @pytest.mark.parametrize("tree", [loco_tree, mvtec_tree])
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"zeros", "not_an_image: "),
            (b"", "empty: the file is empty"),
            (None, "deleted since the source was listed"),
        ],
    )
    def test_each_affects_nothing_else(self, tmp_path: Path, tree: Any, content: bytes | None, reason: str) -> None:
        root = tree(tmp_path / "box")
        entries = planned(root, tmp_path)
        whole, _ = built(root, entries)
        path = sorted((root / "ground_truth").rglob("*.png"))[0]
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        rows, record = built(root, entries)
        assert [row["row_key"] for row in rows] == [row["row_key"] for row in whole]
        assert record.rejected == ()
        assert reasons(record)[path.name].startswith(reason)
        # The mask stays: evaluation then leaves the image out, instead of taking the other masks for all.
        kept = {mask["source_uri"]: mask["mask"] for row in rows for mask in row["masks"]}
        assert kept[str(path)] == (content or b"")
        assert len(kept) == len([mask for row in whole for mask in row["masks"]])

    def test_other_masks_still_name_defects(self, tmp_path: Path) -> None:
        root = loco_tree(tmp_path / "box")
        (root / "ground_truth/logical_anomalies/000/001.png").write_bytes(b"zeros")
        _, record = built(root, planned(root, tmp_path))
        assert record.shard is not None
        assert record.shard.defect_kinds == {"missing": 1, "scratch": 1}


class TestFilesThatMayNotBeRead:
    def test_each_affects_nothing_else(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = mvtec_tree(tmp_path / "bottle", train=2, good=0, bad=1)
        entries = planned(root, tmp_path)
        read = Location.read_bytes

        def closed(location: Location, **options: Any) -> bytes:
            if location.name in ("000_mask.png", "001.png"):
                raise ObjectDeniedError(f"{location}: permission denied; grant access")
            return read(location, **options)

        monkeypatch.setattr(Location, "read_bytes", closed)
        rows, record = built(root, entries)
        found = {Path(row["source_uri"]).parent.name: [mask["mask"] for mask in row["masks"]] for row in rows}
        assert found == {"good": [], "spot": [b""]}
        assert reasons(record) == dict.fromkeys(("000_mask.png", "001.png"), "permission denied; grant access")

    def test_store_that_fails_fails_the_shard(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=0)
        entries = planned(root, tmp_path)

        def failing(location: Location, **_: Any) -> bytes:
            raise StoreError(f"{location}: the store is overloaded")

        monkeypatch.setattr(Location, "read_bytes", failing)
        with pytest.raises(StoreError, match="overloaded"):
            built(root, entries)


class TestKnownPaths:
    def test_known_content_makes_no_row(self, tmp_path: Path) -> None:
        root = mvtec_tree(tmp_path / "bottle", train=2, good=0, bad=0)
        rows, record = built(root, planned(root, tmp_path, known_images=[sha256(png(0)), sha256(png(7))]))
        assert [row["image"] for row in rows] == [png(1)]
        assert (record.known, record.files) == (1, 2)
        assert [Path(uri).name for uri in record.changed] == ["001.png"]

    def test_other_content_has_a_key_of_its_own(self, tmp_path: Path) -> None:
        root = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=0)
        (entry,) = planned(root, tmp_path, known_images=[sha256(png(7))])
        (row,), _ = built(root, [entry])
        by_hand = hashlib.sha256(f"{entry['row_key']}\n{sha256(png(0))}".encode()).hexdigest()[:32]
        assert row["row_key"] == by_hand == changed_key(entry["row_key"], sha256(png(0)))

    def test_other_mask_of_a_known_image_is_rejected(self, tmp_path: Path) -> None:
        root = mvtec_tree(tmp_path / "bottle", train=0, good=0, bad=1)
        image = sha256((root / "test/spot/000.png").read_bytes())
        entries = planned(root, tmp_path, known_images=[image], known_masks=[sha256(mask_png())])
        assert built(root, entries)[1].rejected_masks == ()
        write(root / "ground_truth/spot/000_mask.png", mask_png(value=7))
        rows, record = built(root, entries)
        assert (rows, record.known) == ([], 1)
        assert reasons(record)["000_mask.png"].endswith("ingest the source into a new archive to use it")


def test_new_files_with_rounded_times_are_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=0)
    slept: list[float] = []
    monkeypatch.setattr(building_module.time, "sleep", slept.append)
    monkeypatch.setattr(building_module.time, "time", lambda: 101.5)
    entries = planned(root, tmp_path, source_version="9-100000000000-100000000000")  # type: ignore[arg-type]
    assert built(root, entries)[1].images == 1
    assert slept == [0.5]


class TestSixteenBits:
    def test_record_has_the_largest_value(self, tmp_path: Path) -> None:
        for index, peak in enumerate((300, 1000, 500)):
            (tmp_path / "x").mkdir(exist_ok=True)
            Image.fromarray(np.full((4, 4), peak, np.uint16)).save(tmp_path / f"x/{index}.png")
        assert built(tmp_path / "x", planned(tmp_path / "x", tmp_path))[1].peak == 1000
        write(tmp_path / "y/a.png", png(0))
        assert built(tmp_path / "y", planned(tmp_path / "y", tmp_path))[1].peak is None
