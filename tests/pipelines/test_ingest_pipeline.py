from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.data_set_trees import bmad_tree, mvtec_ad_2_tree, visa_tree
from support.ingests import SMALL, all_bytes, outcome, rows
from support.trees import loco_tree, mask_png, mvtec_tree, png, write

from uniad_ray.archive.layouts import row_key
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages

pytestmark = pytest.mark.usefixtures("ray_cluster")


def upload(folder: Path, root: str) -> str:
    """Copies a local tree to the root of a store and returns its URI there."""
    target = Location.parse(root) / folder.name
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())
    return target.uri


def test_ingest_keeps_every_byte(tmp_path: Path, store_root: str) -> None:
    tree = mvtec_tree(tmp_path / "bottle", train=5, good=2, bad=2)
    write(tree / "test/good/broken.png", b"not an image at all")
    report = ingest(upload(tree, store_root), f"{store_root}/archive", limits=SMALL)
    assert (report.new_images, report.images, len(report.rejected)) == (9, 9, 1)
    manifest = read_manifest(Location.parse(f"{store_root}/archive"))
    assert manifest.categories["bottle"].labels == {"test/anomalous": 2, "test/normal": 2, "train/normal": 5}
    assert manifest.rejected[0].source_uri.endswith("broken.png")
    assert manifest.rejected[0].reason.startswith("not_an_image")
    assert all(group.rows <= 2 for shard in manifest.shards for group in shard.row_groups)
    by_name = {str(row["source_uri"]).split("bottle/")[1]: row for row in rows(f"{store_root}/archive")}
    assert by_name["train/good/000.png"]["image"] == (tree / "train/good/000.png").read_bytes()
    assert by_name["test/spot/001.png"]["masks"][0]["mask"] == (tree / "ground_truth/spot/001_mask.png").read_bytes()  # type: ignore[index]


def test_repeated_ingest_changes_nothing(tmp_path: Path, store_root: str) -> None:
    source = upload(mvtec_tree(tmp_path / "bottle"), store_root)
    ingest(source, f"{store_root}/archive", limits=SMALL)
    before = all_bytes(f"{store_root}/archive")
    report = ingest(source, f"{store_root}/archive", limits=SMALL)
    assert report.new_images == 0
    assert all_bytes(f"{store_root}/archive") == before


def test_interrupted_ingest_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    tree = mvtec_tree(tmp_path / "bottle", train=9)
    ingest(str(tree), str(tmp_path / "whole"), limits=SMALL)
    ingest(str(tree), str(tmp_path / "broken"), limits=SMALL)
    root = Location.parse(tmp_path / "broken")
    plan_folder = next(info.relative for info in (root / "_ingest").list(suffix="plan.parquet")).split("/")[0]
    shards = read_manifest(root).shards
    # As after a kill -9: one shard without its record, one missing, no record of the ingest, no manifest.
    (root / "_ingest" / plan_folder / "ingest.json").delete()
    (root / "manifest.json").delete()
    for index in (1, 2):
        (root / "_ingest" / plan_folder / f"shards/{index:05d}.json").delete()
    (root / shards[2].path).delete()
    with pytest.raises(ArchiveError, match="complete `uniad-ray ingest"):
        read_manifest(root)
    report = ingest(str(tree), str(tmp_path / "broken"), limits=SMALL)
    assert report.skipped_shards == len(shards) - 2
    assert all_bytes(str(tmp_path / "broken")) == all_bytes(str(tmp_path / "whole"))


def test_new_and_changed_images_are_added(tmp_path: Path, store_root: str) -> None:
    archive = f"{store_root}/archive"
    tree = mvtec_tree(tmp_path / "bottle", train=3, good=1, bad=1)
    write(tree / "test/good/broken.png", b"zeros")
    first = ingest(upload(tree, store_root), archive, limits=SMALL)
    write(tree / "train/good/100.png", png(100))
    write(tree / "train/good/000.png", png(7))
    write(tree / "test/good/broken.png", png(8))
    second = ingest(upload(tree, store_root), archive, limits=SMALL)
    assert outcome(second) == {"taken": 2, "known": 4, "changed": ["000.png"], "rejected": {}}
    assert (second.new_images, second.images) == (3, first.images + 3)
    third = ingest(str(loco_tree(tmp_path / "box")), archive, limits=SMALL)
    manifest = read_manifest(Location.parse(archive))
    assert manifest.rejected_count == 0
    assert set(manifest.categories) == {"bottle", "box"}
    assert manifest.images == third.images == second.images + 14
    assert manifest.categories["box"].defects_config is not None
    keys = [row["row_key"] for row in rows(archive)]
    assert len(set(keys)) == len(keys)


def test_archive_does_not_depend_on_source_location(tmp_path: Path, s3_prefix: str) -> None:
    tree = mvtec_tree(tmp_path / "bottle")
    ingest(str(tree), str(tmp_path / "archive"), limits=SMALL)
    ingest(upload(tree, s3_prefix), f"{s3_prefix}/archive", limits=SMALL)
    local = [{**row, "source_uri": None, "masks": None} for row in rows(str(tmp_path / "archive"))]
    remote = [{**row, "source_uri": None, "masks": None} for row in rows(f"{s3_prefix}/archive")]
    assert local == remote


def test_visa_is_ingested_with_masks_splits_and_defects(tmp_path: Path, store_root: str) -> None:
    tree = visa_tree(tmp_path / "visa")
    (tree / "pcb1/Data/Images/Normal/0001.JPG").unlink()
    report = ingest(upload(tree, store_root), f"{store_root}/archive")
    assert report.images == 5
    assert [entry.reason for entry in report.rejected] == [
        "split_csv/1cls.csv lists it in line 6, but it does not exist"
    ]
    assert report.rejected[0].source_uri == f"{Location.parse(store_root)}/visa/pcb1/Data/Images/Normal/0001.JPG"
    categories = read_manifest(Location.parse(f"{store_root}/archive")).categories
    assert categories["candle"].labels == {"test/anomalous": 1, "test/normal": 1, "train/normal": 1}
    assert categories["candle"].defect_kinds == {"bent+melded": 1}
    assert categories["pcb1"].defect_kinds == {"anomaly": 1}
    masked = {str(row["category"]): row["masks"] for row in rows(f"{store_root}/archive") if row["masks"]}
    assert {name: masks[0]["mask"] for name, masks in masked.items()} == {  # type: ignore[index]
        "candle": mask_png(value=3),
        "pcb1": mask_png(value=3),
    }


@pytest.mark.parametrize(
    ("draw_tree", "category", "fitted"),
    [
        (bmad_tree, "brain", {"train/good/00003_60.png", "valid/good/img/00025_99.png"}),
        (mvtec_ad_2_tree, "can", {"train/good/000_regular.png", "validation/good/000_regular.png"}),
    ],
)
def test_fit_uses_normal_images_only(
    tmp_path: Path, draw_tree: Callable[[Path], Path], category: str, fitted: set[str]
) -> None:
    ingest(str(draw_tree(tmp_path / "tree")), str(tmp_path / "archive"), category=category)
    archive = Location.parse(tmp_path / "archive")
    normal_images = ArchiveNormalImages(archive, read_manifest(archive), category, image_size=(32, 32))
    assert {row.row_key for row in normal_images.rows} == {row_key(category, path) for path in fitted}
