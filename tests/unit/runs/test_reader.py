"""Read a hand-written run from the local disk and from S3."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.runs import ScoredImage, write_archive, write_run
from support.trees import mask_png, png

from uniad_ray.archive.images import decode_mask
from uniad_ray.archive.manifest import build_manifest, read_manifest
from uniad_ray.archive.shards import rewrite_shard
from uniad_ray.config.region import RegionMask
from uniad_ray.errors import RunError, StoreError
from uniad_ray.evaluation import pixel_metrics
from uniad_ray.evaluation.labelled_images import labelled_images
from uniad_ray.evaluation.run import evaluate_run
from uniad_ray.perception.region import Region
from uniad_ray.runs.maps import StoredMap, write_maps
from uniad_ray.runs.reader import RunReader


def images() -> list[ScoredImage]:
    flat = np.full((4, 4), 0.25, np.float16)
    return [
        *(ScoredImage(f"train{index}", png(index), 0.1, split="train") for index in range(4)),
        ScoredImage("good0", png(10), 0.2, anomaly_map=flat),
        ScoredImage("good1", png(11), 0.7, anomaly_map=flat),
        ScoredImage("broken", png(12), None),
        ScoredImage("new", png(13), 0.9, label=None),
        ScoredImage(
            "spot0",
            png(14, spot=True),
            0.9,
            "anomalous",
            "spot",
            "structural",
            anomaly_map=flat * 4,
            masks=(mask_png(),),
        ),
        ScoredImage("gone0", png(15, spot=True), 0.3, "anomalous", "gone", "logical", anomaly_map=flat),
        ScoredImage("odd0", png(16, spot=True), 0.6, "anomalous"),
        ScoredImage("a", png(20), 0.4, label=None, split="archive", category="other"),
        ScoredImage("b", png(21), 0.6, split="archive", category="other"),
        ScoredImage("c", png(22), 0.6, split="train", category="third"),
    ]


@pytest.fixture
def reader(store_root: str) -> RunReader:
    archive = write_archive(f"{store_root}/archive", images())
    return RunReader(write_run(f"{store_root}/run", archive, images()))


def key(name: str) -> str:
    return next(image.row_key for image in images() if image.name == name)


def test_scores_are_in_archive_order(reader: RunReader) -> None:
    table = reader.scores()
    assert table.num_rows == len(images()) == reader.manifest.images
    assert table.column("category").to_pylist() == ["other"] * 2 + ["part"] * 11 + ["third"]
    assert reader.scores(["row_key"], categories=["other"]).to_pydict() == {"row_key": [key("a"), key("b")]}
    assert reader.scores(["row_key"], categories=["none"]).num_rows == 0


def test_maps_and_images_match_requested_rows(reader: RunReader) -> None:
    wanted = [key("spot0"), key("good0"), key("broken")]
    maps = reader.maps("part", wanted)
    assert set(maps) == {key("spot0"), key("good0")}
    assert maps[key("spot0")].dtype == np.float16
    assert maps[key("spot0")].tolist() == [[1.0] * 4] * 4
    rows = reader.images("part", wanted)
    assert set(rows) == set(wanted)
    assert rows[key("spot0")].image == png(14, spot=True)
    assert [mask.data for mask in rows[key("spot0")].masks] == [mask_png()]
    assert (rows[key("broken")].width, rows[key("broken")].masks) == (48, ())
    assert reader.maps("part", []) == reader.images("part", []) == {}
    assert reader.maps("other", wanted) == reader.images("other", wanted) == {}


def test_top_maps_are_in_the_folder_of_the_chunks(tmp_path: Path) -> None:
    image = ScoredImage("1", b"image", 0.5, category="a b")
    run = write_run(tmp_path / "run", write_archive(tmp_path / "archive", [image]), [image], maps="top")
    stored = StoredMap(image.row_key, image.category, 0.5, np.ones((2, 2), np.float16))
    write_maps(run / "maps/a b/top.parquet", [stored])
    assert RunReader(run).maps("a b", [image.row_key])[image.row_key].tolist() == [[1, 1], [1, 1]]
    assert RunReader(run).maps("other", [image.row_key]) == {}


def test_incomplete_run_is_refused(reader: RunReader) -> None:
    (reader.location / "chunks.parquet").write_bytes(b"other")
    with pytest.raises(RunError, match="checksum mismatch: the file is corrupt; score again"):
        RunReader(reader.location)
    (reader.location / "chunks.parquet").delete()
    with pytest.raises(StoreError, match=r"chunks\.parquet"):
        RunReader(reader.location)
    (reader.location / "manifest.json").delete()
    with pytest.raises(RunError, match="the run is not finished"):
        RunReader(reader.location)


def test_labelled_images_come_from_the_evaluated_split(reader: RunReader) -> None:
    found = {labelled.category: labelled for labelled in labelled_images(reader)}
    assert list(found) == ["other", "part", "third"]
    part = found["part"]
    assert (part.split, part.unlabelled_images, part.error_images) == ("test", 1, 1)
    assert part.row_keys.to_pylist() == [key(name) for name in ("good0", "good1", "spot0", "gone0", "odd0")]
    assert part.anomalous.tolist() == [False, False, True, True, True]
    assert part.scores.tolist() == [0.2, 0.7, 0.9, 0.3, 0.6]
    assert part.called.tolist() == [False, True, True, False, True]
    assert part.experts["patch"].tolist() == part.scores.tolist()
    assert part.defect_kinds == (None, None, "spot", "gone", "unknown")
    other, third = found["other"], found["third"]
    assert (other.split, other.row_keys.to_pylist(), other.unlabelled_images) == ("archive", [key("b")], 1)
    assert (third.split, third.row_keys.to_pylist()) == (None, [])


def test_groups_contain_all_normal_images(reader: RunReader) -> None:
    part = next(labelled for labelled in labelled_images(reader) if labelled.category == "part")
    members = {(group.group, group.name): group.members.tolist() for group in part.groups()}
    assert members == {
        ("all", "all"): [True, True, True, True, True],
        ("anomaly_type", "logical"): [True, True, False, True, False],
        ("anomaly_type", "structural"): [True, True, True, False, False],
        ("defect_kind", "gone"): [True, True, False, True, False],
        ("defect_kind", "spot"): [True, True, True, False, False],
        ("defect_kind", "unknown"): [True, True, False, False, True],
    }


def test_deleted_images_keep_their_rows_and_are_absent_otherwise(reader: RunReader) -> None:
    archive = reader.archive
    (shard,) = [shard for shard in read_manifest(archive).shards if shard.category == "part"]
    rewritten = rewrite_shard(archive, shard, {key("spot0"), key("good0")})
    assert rewritten is not None
    (archive / shard.path).write_bytes(rewritten[0])
    assert reader.scores().num_rows == len(images())
    assert set(reader.images("part", {key("spot0"), key("good1")})) == {key("good1")}
    report = evaluate_run(reader, {}, resamples=0, confidence=0.95)
    assert "part: 2 images deleted from the archive, excluded from the pixel metrics" in report.notes
    own = [metric for metric in report.metrics if (metric.category, metric.metric) == ("part", "image_auroc")]
    assert own[0].value is not None


def test_deleted_shard_is_empty_and_a_lost_one_an_error(reader: RunReader) -> None:
    manifest = read_manifest(reader.archive)
    (shard,) = [shard for shard in manifest.shards if shard.category == "other"]
    (reader.archive / shard.path).delete()
    with pytest.raises(StoreError):
        reader.images("other", {key("a")})
    kept = build_manifest(
        schema_version=1,
        shards=[other for other in manifest.shards if other != shard],
        rejected=[],
        defects={},
        ingests=["x"],
    )
    (reader.archive / "manifest.json").write_json(kept.model_dump(mode="json"))
    assert reader.images("other", {key("a")}) == {}


def test_chunks_of_an_older_version_have_no_images_for_review(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", write_archive(tmp_path / "archive", images()), images())
    table = pq.read_table(tmp_path / "run/chunks.parquet").drop_columns(["in_review"])
    metadata = {**table.schema.metadata, b"uniad_ray.schema_version": b"1"}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "run/chunks.parquet")
    document = (run / "manifest.json").read_json()
    document["chunks_sha256"] = hashlib.sha256((tmp_path / "run/chunks.parquet").read_bytes()).hexdigest()
    del document["in_review"]
    (run / "manifest.json").write_json(document)
    reader = RunReader(run)
    assert {chunk.in_review for chunk in reader.chunks} == {0} == {reader.manifest.in_review}


def test_pixel_metrics_leave_out_what_is_outside_of_the_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masked = decode_mask(mask_png()) > 0
    flat, hot = np.zeros((48, 48), np.float16), masked.astype(np.float16)
    hot[:, 40:] = 2
    own = [
        ScoredImage("good", png(10), 0.2, anomaly_map=flat),
        ScoredImage("bad", png(14), 0.9, "anomalous", "spot", anomaly_map=hot, masks=(mask_png(),)),
    ]
    assert not masked[:, 38:].any()
    archive = write_archive(tmp_path / "archive", own)
    reader = RunReader(write_run(tmp_path / "run", archive, own))

    def auroc(region: np.ndarray | None) -> tuple[float | None, str]:
        found = None if region is None else Region(RegionMask.of(region), (48, 48))
        monkeypatch.setattr(pixel_metrics, "region_of", lambda *_: found)
        report = evaluate_run(reader, {}, resamples=0, confidence=0.95)
        values = [entry.value for entry in report.metrics if entry.metric == "pixel_auroc" and entry.group == "all"]
        return (values[0] if values else None), " ".join(report.notes)

    left = np.zeros((48, 48), dtype=bool)
    left[:, :38] = True
    whole, _ = auroc(None)
    inside, _ = auroc(left)
    assert whole is not None
    assert whole < 1.0 == inside
    assert "1 anomalous image with a mask outside of the region" in auroc(~left)[1]
