"""Nights of a factory: what the same ingest does when the source has changed, with the tasks of Ray in this process."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.ingests import Ingest, StoppedError, all_bytes, build_here, outcome, rows, without_ray
from support.trees import loco_tree, mask_png, mvtec_tree, png, write

from uniad_ray.archive.layouts import row_key
from uniad_ray.archive.layouts.entries import changed_key
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.stores.s3_client import s3_client
from uniad_ray.cli import main
from uniad_ray.errors import ArchiveError, ObjectDeniedError
from uniad_ray.pipelines.ingest import job

NOTHING: dict[str, Any] = {"taken": 0, "known": 0, "changed": [], "rejected": {}}


def overwrite(path: Path, data: bytes) -> None:
    """Replaces the content of a file and sets its time of change back, as `cp -p` and `rsync -t` may do."""
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def same_size(*seeds: int) -> list[bytes]:
    """Different images in files of one size."""
    files = []
    for seed in seeds:
        buffer = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), seed, np.uint8)).save(buffer, "BMP")
        files.append(buffer.getvalue())
    assert len({len(data) for data in files}) == 1
    return files


class TestChangedFiles:
    def test_file_of_same_size_and_time_is_a_new_row(self, tmp_path: Path, ingest: Ingest) -> None:
        first, second, third = same_size(1, 2, 3)
        write(tmp_path / "s/a.bmp", first)
        write(tmp_path / "s/b.bmp", third)
        assert outcome(ingest(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"taken": 2}
        before = rows(tmp_path / "ar")
        overwrite(tmp_path / "s/a.bmp", second)
        report = ingest(tmp_path / "s", tmp_path / "ar")
        assert outcome(report) == NOTHING | {"known": 1, "changed": ["a.bmp"]}
        assert (report.new_images, report.images) == (1, 3)
        after = {row["row_key"]: row for row in rows(tmp_path / "ar")}
        assert [after.pop(row["row_key"]) for row in before] == before
        (new,) = after.values()
        key = row_key("s", f"{tmp_path}/s/a.bmp")
        assert new["image"] == second
        assert new["row_key"] == changed_key(key, new["image_id"])
        assert outcome(ingest(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"known": 2}

    def test_content_that_returns_is_known(self, tmp_path: Path, ingest: Ingest) -> None:
        first, second = same_size(1, 2)
        for data in (first, second):
            write(tmp_path / "s/a.bmp", data)
            ingest(tmp_path / "s", tmp_path / "ar")
        for data in (first, second, first):
            write(tmp_path / "s/a.bmp", data)
            assert outcome(ingest(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"known": 1}
        assert [row["image"] for row in rows(tmp_path / "ar")] in ([first, second], [second, first])

    def test_touched_and_moved_files_are_known(self, tmp_path: Path, ingest: Ingest) -> None:
        tree = mvtec_tree(tmp_path / "bottle", train=3, good=1, bad=1)
        ingest(tree, tmp_path / "ar")
        for path in tree.rglob("*.png"):
            os.utime(path, ns=(7, 7))
        assert outcome(ingest(tree, tmp_path / "ar")) == NOTHING | {"known": 5}
        before = all_bytes(tmp_path / "ar")
        assert outcome(ingest(tree, tmp_path / "ar")) == NOTHING | {"known": 5}
        assert all_bytes(tmp_path / "ar") == before
        shutil.copytree(tree, tmp_path / "elsewhere/bottle")
        assert outcome(ingest(tmp_path / "elsewhere/bottle", tmp_path / "ar")) == NOTHING | {"known": 5}
        assert len(rows(tmp_path / "ar")) == 5

    def test_unchanged_files_are_not_read(
        self, tmp_path: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tree = mvtec_tree(tmp_path / "bottle", train=3, good=1, bad=1)
        ingest(tree, tmp_path / "ar")
        read = Location.read_bytes
        seen: list[str] = []

        def counted(location: Location, **options: Any) -> bytes:
            seen.append(location.uri)
            return read(location, **options)

        monkeypatch.setattr(Location, "read_bytes", counted)
        ingest(tree, tmp_path / "ar")
        assert [uri for uri in seen if uri.startswith(str(tree))] == []

    def test_two_trees_in_turn_are_read_once(self, tmp_path: Path, ingest: Ingest) -> None:
        trees = [mvtec_tree(tmp_path / f"line{seed}/bottle", train=2, good=0, bad=0, seed=seed) for seed in (1, 2)]
        assert outcome(ingest(trees[0], tmp_path / "ar"))["taken"] == 2
        assert outcome(ingest(trees[1], tmp_path / "ar"))["changed"] == ["000.png", "001.png"]
        for tree in (*trees, *trees):
            assert outcome(ingest(tree, tmp_path / "ar")) == NOTHING | {"known": 2}
        assert len({row["row_key"] for row in rows(tmp_path / "ar")}) == 4

    def test_changed_image_brings_its_masks(self, tmp_path: Path, ingest: Ingest) -> None:
        tree = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=1)
        ingest(tree, tmp_path / "ar")
        write(tree / "test/spot/000.png", png(9, spot=True))
        write(tree / "ground_truth/spot/000_mask.png", mask_png(value=9))
        assert outcome(ingest(tree, tmp_path / "ar")) == NOTHING | {"known": 1, "changed": ["000.png"]}
        masks = {row["image"]: row["masks"][0]["mask"] for row in rows(tmp_path / "ar") if row["masks"]}
        assert masks[png(9, spot=True)] == mask_png(value=9)
        assert len(masks) == 2

    @given(nights=st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=5))
    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_nights_lose_and_double_nothing(
        self, nights: list[list[int]], ingest: Ingest, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Content 0 is no file, 4 is no image."""
        root = tmp_path_factory.mktemp("nights")
        contents = [b"", *same_size(1, 2, 3), b"BM" + bytes(len(same_size(1)[0]) - 2)]
        write(root / "s/always.bmp", same_size(9)[0])
        expected = {("always.bmp", same_size(9)[0])}
        for night in nights:
            for name, content in zip(("a.bmp", "b.bmp", "c.bmp"), night, strict=True):
                (root / "s" / name).unlink(missing_ok=True)
                if content:
                    write(root / "s" / name, contents[content])
                    expected |= {(name, contents[content])} if content < 4 else set()
            report = ingest(root / "s", root / "ar")
            assert report.taken + report.known + len(report.changed) == 1 + sum(0 < content < 4 for content in night)
            assert len(report.rejected) == night.count(4)
            found = [(Path(row["source_uri"]).name, row["image"]) for row in rows(root / "ar")]
            assert sorted(found) == sorted(expected)
            assert len({row["row_key"] for row in rows(root / "ar")}) == len(found)


class TestObjects:
    @staticmethod
    def upload_in_parts(location: Location, data: bytes) -> None:
        """Uploads an object with an ETag that is not the MD5 of its content."""
        client, place = s3_client(), {"Bucket": location.bucket, "Key": location.path}
        upload = {"UploadId": client.create_multipart_upload(**place)["UploadId"]}
        part = client.upload_part(**place, **upload, PartNumber=1, Body=data)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        client.complete_multipart_upload(**place, **upload, MultipartUpload=parts)

    def test_etags_identify_versions_and_digests_contents(self, s3_prefix: str, ingest: Ingest) -> None:
        first, second = same_size(1, 2)
        source, archive = f"{s3_prefix}/s", f"{s3_prefix}/ar"
        image = Location.parse(source) / "a.bmp"
        image.write_bytes(first)
        assert outcome(ingest(source, archive)) == NOTHING | {"taken": 1}
        (before,) = Location.parse(source).list()
        image.write_bytes(first)
        assert [*Location.parse(source).list()] == [before]
        self.upload_in_parts(image, first)
        (after,) = Location.parse(source).list()
        assert after.version != before.version
        for _ in range(2):
            assert outcome(ingest(source, archive)) == NOTHING | {"known": 1}
        image.write_bytes(second)
        assert outcome(ingest(source, archive)) == NOTHING | {"changed": ["a.bmp"]}
        self.upload_in_parts(image, first)
        assert outcome(ingest(source, archive)) == NOTHING | {"known": 1}
        assert sorted(row["image"] for row in rows(archive)) == sorted([first, second])

    def test_copy_on_a_disk_is_known(self, tmp_path: Path, s3_prefix: str, ingest: Ingest) -> None:
        tree = mvtec_tree(tmp_path / "bottle", train=2, good=1, bad=1)
        ingest(tree, tmp_path / "ar")
        for path in tree.rglob("*.png"):
            (Location.parse(s3_prefix) / f"bottle/{path.relative_to(tree)}").write_bytes(path.read_bytes())
        assert outcome(ingest(f"{s3_prefix}/bottle", tmp_path / "ar")) == NOTHING | {"known": 4}


class TestRejectedFiles:
    def test_mended_file_is_taken(self, tmp_path: Path, ingest: Ingest) -> None:
        (good,) = same_size(1)
        write(tmp_path / "s/0.bmp", bytes(len(good)))
        for _ in range(3):
            report = ingest(tmp_path / "s", tmp_path / "ar")
            assert outcome(report)["rejected"]["0.bmp"].startswith("not_an_image: ")
            assert report.is_all_rejected
        overwrite(tmp_path / "s/0.bmp", good)
        assert outcome(ingest(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"taken": 1}
        manifest = read_manifest(Location.parse(tmp_path / "ar"))
        assert (manifest.images, manifest.rejected_count, manifest.rejected) == (1, 0, ())
        assert outcome(ingest(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"known": 1}

    def test_mended_file_among_good_ones_is_taken(self, tmp_path: Path, ingest: Ingest) -> None:
        tree = mvtec_tree(tmp_path / "bottle", train=6, good=1, bad=1)
        write(tree / "train/good/000.png", bytes(100))
        for known in (0, 7, 7):
            report = ingest(tree, tmp_path / "ar")
            assert (report.known, list(outcome(report)["rejected"])) == (known, ["000.png"])
        write(tree / "train/good/000.png", png(0))
        assert outcome(ingest(tree, tmp_path / "ar")) == NOTHING | {"taken": 1, "known": 7}

    def test_rejected_file_of_the_same_version_is_read_again(
        self, tmp_path: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "s/0.png", png(0))
        write(tmp_path / "s/1.png", png(1))
        read = Location.read_bytes

        def closed(location: Location, **options: Any) -> bytes:
            if location.name == "0.png":
                raise ObjectDeniedError(f"{location}: permission denied; grant access")
            return read(location, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Location, "read_bytes", closed)
            for known in (0, 1, 1):
                report = ingest(tmp_path / "s", tmp_path / "ar")
                assert (report.known, outcome(report)["rejected"]) == (
                    known,
                    {"0.png": "permission denied; grant access"},
                )
        assert outcome(ingest(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"known": 1, "taken": 1}

    def test_repeated_ingest_of_broken_files_changes_nothing(self, tmp_path: Path, ingest: Ingest) -> None:
        tree = mvtec_tree(tmp_path / "bottle", train=2, good=1, bad=1)
        write(tree / "train/good/000.png", b"no image")
        write(tree / "readme.txt", b"no image")
        write(tree / "ground_truth/spot/000_mask.png", b"no mask")
        for _ in range(2):
            ingest(tree, tmp_path / "ar")
        before = all_bytes(tmp_path / "ar")
        report = ingest(tree, tmp_path / "ar")
        assert set(outcome(report)["rejected"]) == {"000.png", "readme.txt", "000_mask.png"}
        assert all_bytes(tmp_path / "ar") == before

    def test_every_listed_file_is_counted(self, tmp_path: Path, ingest: Ingest) -> None:
        tree = loco_tree(tmp_path / "box")
        write(tree / "train/good/broken.png", b"no image")
        write(tree / ".cache/0.png", png(0))
        write(tree / "defects_config.json", b"[1, 2]")
        write(tree / "ground_truth/logical_anomalies/000/000.png", b"no mask")
        files = sum(path.is_file() for path in tree.rglob("*"))
        for _ in range(2):
            report = ingest(tree, tmp_path / "ar")
            counted = report.taken + report.known + len(report.changed) + report.attached + len(report.rejected)
            assert counted == files
            assert set(outcome(report)["rejected"]) == {"broken.png", "0.png", "000.png", "defects_config.json"}

    def test_mended_mask_is_named_until_there_is_a_new_archive(self, tmp_path: Path, ingest: Ingest) -> None:
        tree = mvtec_tree(tmp_path / "bottle", train=1, good=1, bad=1)
        write(tree / "ground_truth/spot/000_mask.png", b"no mask")
        report = ingest(tree, tmp_path / "ar")
        assert (report.taken, outcome(report)["rejected"]["000_mask.png"][:12]) == (3, "not_an_image")
        write(tree / "ground_truth/spot/000_mask.png", mask_png())
        for _ in range(2):
            reason = outcome(ingest(tree, tmp_path / "ar"))["rejected"]["000_mask.png"]
            assert reason.endswith("ingest the source into a new archive to use it")
        assert outcome(ingest(tree, tmp_path / "new")) == NOTHING | {"taken": 3}

    def test_mended_defect_list_is_used(self, tmp_path: Path, ingest: Ingest) -> None:
        tree = loco_tree(tmp_path / "box")
        whole = (tree / "defects_config.json").read_bytes()
        write(tree / "defects_config.json", whole.replace(b"253", b"null"))
        report = ingest(tree, tmp_path / "ar")
        assert outcome(report)["rejected"]["defects_config.json"].startswith("entry 2: pixel_value: ")
        manifest = read_manifest(Location.parse(tmp_path / "ar"))
        assert manifest.categories["box"].defect_kinds == {"missing": 1, "scratch": 1}
        assert len(manifest.categories["box"].defects_config or ()) == 2
        write(tree / "defects_config.json", whole)
        assert outcome(ingest(tree, tmp_path / "ar"))["rejected"] == {}
        assert len(read_manifest(Location.parse(tmp_path / "ar")).categories["box"].defects_config or ()) == 3


class TestKills:
    @pytest.mark.parametrize("stop_after", [0, 1, 2])
    def test_resumed_ingest_has_the_bytes_of_an_unbroken_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
    ) -> None:
        tree = mvtec_tree(tmp_path / "bottle", train=9)
        write(tree / "train/good/000.png", b"no image")
        without_ray(monkeypatch)(tree, tmp_path / "whole")
        with pytest.raises(StoppedError):
            without_ray(monkeypatch, stop_after=stop_after)(tree, tmp_path / "broken")
        report = without_ray(monkeypatch)(tree, tmp_path / "broken")
        assert report.skipped_shards == stop_after
        assert all_bytes(tmp_path / "broken") == all_bytes(tmp_path / "whole")

    def test_file_that_changes_before_the_resume_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = same_size(1, 2)
        write(tmp_path / "s/a.bmp", first)
        with pytest.raises(StoppedError):
            without_ray(monkeypatch, stop_after=1)(tmp_path / "s", tmp_path / "ar")
        overwrite(tmp_path / "s/a.bmp", second)
        run = without_ray(monkeypatch)
        assert outcome(run(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"taken": 1}
        assert [row["image"] for row in rows(tmp_path / "ar")] == [second]
        assert outcome(run(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"known": 1}

    def test_file_that_breaks_before_the_resume_leaves_no_shard(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (good,) = same_size(1)
        write(tmp_path / "s/a.bmp", good)
        with pytest.raises(StoppedError):
            without_ray(monkeypatch, stop_after=1)(tmp_path / "s", tmp_path / "ar")
        overwrite(tmp_path / "s/a.bmp", bytes(len(good)))
        without_ray(monkeypatch)(tmp_path / "s", tmp_path / "ar")
        assert [name for name in all_bytes(tmp_path / "ar") if name.startswith("images/")] == []

    def test_killed_while_it_reads_a_mended_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = without_ray(monkeypatch)
        (good,) = same_size(1)
        write(tmp_path / "s/0.bmp", bytes(len(good)))
        run(tmp_path / "s", tmp_path / "ar")
        overwrite(tmp_path / "s/0.bmp", good)
        for stop_after in (0, 1):
            with pytest.raises(StoppedError):
                without_ray(monkeypatch, stop_after=stop_after)(tmp_path / "s", tmp_path / "ar")
        assert outcome(run(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"taken": 1}
        run(tmp_path / "s", tmp_path / "whole")
        whole = {name: data for name, data in all_bytes(tmp_path / "whole").items() if name.startswith("images/")}
        assert {name: data for name, data in all_bytes(tmp_path / "ar").items() if name in whole} == whole

    @pytest.mark.parametrize("lost", [["shards"], ["shards", "ingest.json"], ["ingest.json"]])
    def test_killed_while_it_reads_rejected_files_again(self, tmp_path: Path, ingest: Ingest, lost: list[str]) -> None:
        write(tmp_path / "s/0.png", b"no image")
        ingest(tmp_path / "s", tmp_path / "ar")
        before = all_bytes(tmp_path / "ar")
        (folder,) = {path.parent for path in (tmp_path / "ar/_ingest").rglob("plan.parquet")}
        for name in lost:
            shutil.rmtree(folder / name) if name == "shards" else (folder / name).unlink()
        ingest(tmp_path / "s", tmp_path / "ar")
        assert all_bytes(tmp_path / "ar") == before


class TestFormerArchives:
    @staticmethod
    def make_former(archive: Path) -> None:
        """Turns the plans and records of an archive into those of the former format."""
        shutil.rmtree(archive / "_ingest/sources")
        for plan in archive.rglob("plan.parquet"):
            new = ["source_version", "mask_versions", "known_images", "known_masks"]
            metadata = {"uniad_ray.schema": "ingest_plan", "uniad_ray.schema_version": "1"}
            pq.write_table(pq.read_table(plan).drop_columns(new).replace_schema_metadata(metadata), plan)

    def test_former_archive_is_compared_once_by_content(self, tmp_path: Path, ingest: Ingest) -> None:
        first, second = same_size(1, 2)
        write(tmp_path / "s/a.bmp", first)
        write(tmp_path / "s/b.bmp", first)
        ingest(tmp_path / "s", tmp_path / "ar")
        self.make_former(tmp_path / "ar")
        overwrite(tmp_path / "s/b.bmp", second)
        assert outcome(ingest(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"known": 1, "changed": ["b.bmp"]}
        assert outcome(ingest(tmp_path / "s", tmp_path / "ar")) == NOTHING | {"known": 2}

    def test_decomposed_names_keep_their_rows_and_category(
        self, tmp_path: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = tmp_path / "s/U\u0308"
        write(source / "train/good/a\u0308.png", png(0))
        with monkeypatch.context() as patch:
            for module in ("layouts.source", "ingest.known"):
                patch.setattr(f"uniad_ray.archive.{module}.normalised", lambda text: text)
            ingest(source, tmp_path / "ar")
        self.make_former(tmp_path / "ar")
        (before,) = rows(tmp_path / "ar")
        assert before["row_key"] == row_key("U\u0308", "train/good/a\u0308.png")
        write(source / "train/good/b.png", png(1))
        assert outcome(ingest(source, tmp_path / "ar")) == NOTHING | {"known": 1, "taken": 1}
        manifest = read_manifest(Location.parse(tmp_path / "ar"))
        assert list(manifest.categories) == ["U\u0308"]
        assert outcome(ingest(source, tmp_path / "ar")) == NOTHING | {"known": 2}


def test_archive_path_must_be_utf8(tmp_path: Path, ingest: Ingest) -> None:
    write(tmp_path / "s/0.png", png(0))
    with pytest.raises(ArchiveError, match=r"ar\\xdf: the path is not UTF-8 text; name another archive"):
        ingest(tmp_path / "s", f"{tmp_path}/ar\udcdf")


def test_other_labels_of_known_images_are_a_warning(tmp_path: Path, ingest: Ingest) -> None:
    write(tmp_path / "s/0.png", png(0))
    assert ingest(tmp_path / "s", tmp_path / "ar").warnings == ()
    report = ingest(tmp_path / "s", tmp_path / "ar", split="train", label="normal")
    assert outcome(report) == NOTHING | {"known": 1}
    assert report.warnings[0].startswith("1 known images have another split, label, defect or metadata than in")
    assert ingest(tmp_path / "s", tmp_path / "ar").warnings == ()


def test_unshifted_camera_is_a_warning(tmp_path: Path, ingest: Ingest) -> None:
    for index in range(2):
        (tmp_path / "s").mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), 900 + index, np.uint16)).save(tmp_path / f"s/{index}.png")
    report = ingest(tmp_path / "s", tmp_path / "ar")
    assert report.warnings[0].startswith("s: no value of its 16-bit images is above 901, as from a camera with 10 bits")
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "s/2.png")
    assert ingest(tmp_path / "s", tmp_path / "ar").warnings == ()


@pytest.mark.parametrize(("content", "code"), [(b"no image", 1), (png(0), 0)])
def test_command_fails_if_all_files_are_rejected(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    code: int,
) -> None:
    write(tmp_path / "s/0.png", content)
    write(tmp_path / "s/.x/0.png", png(0))
    monkeypatch.setattr(job, "_build_on_ray", build_here)
    with pytest.raises(SystemExit) as ended:
        main(["ingest", str(tmp_path / "s"), str(tmp_path / "ar")])
    assert ended.value.code == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"files: {1 - code} taken, 0 known, 0 changed, {1 + code} rejected, 0 masks and tables"
    assert lines[-1].startswith("all files were rejected") == bool(code)
