"""Image manifests as sources: JSON lines, CSV, and Lookout for Vision."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.ingests import Ingest, outcome, rows
from support.lookout import color_mask, lookout_line
from support.trees import mask_png, png, write

from uniad_ray.archive.images import ImageLimits
from uniad_ray.archive.ingest.mask_colors import labelled_mask
from uniad_ray.archive.layouts.manifests.listed import MAX_VALUE
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError, ImageError

CLASSES = [{"color": "#ffffff", "name": ""}, {"color": "#2ca02c", "name": "scratch"}]


def write_manifest(root: Path, *lines: str, name: str = "m.manifest") -> str:
    (root / name).write_text("\n".join(lines) + "\n", "utf-8")
    return str(root / name)


def images(root: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        write(root / name, png(seed))


def by_name(archive: Path) -> dict[str, dict[str, Any]]:
    return {Path(row["source_uri"]).name: row for row in rows(archive)}


def metadata(row: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in row["metadata"]}


class TestOwnColumns:
    def test_csv_gives_labels_masks_splits_categories_and_metadata(self, tmp_path: Path, ingest: Ingest) -> None:
        images(tmp_path, "a.png", "in/b.png", "c.png")
        write(tmp_path / "b-mask.png", mask_png())
        manifest = write_manifest(
            tmp_path,
            "path,label,mask,split,category,defect_kind,time,Serial,line,ø",
            "a.png,good,,train,lid,,2026-11-29T23:04:05+01:00,A-1,7,x",
            '"in/b.png",anomaly,b-mask.png,test,lid,scratch,,A-2,,',
            f"{tmp_path}/c.png,,,,base,,,A-2,8,",
            name="m.csv",
        )
        report = ingest(tmp_path, tmp_path / "ar", manifest=manifest)
        assert (report.taken, report.rejected, report.attached) == (3, (), 1)
        found = by_name(tmp_path / "ar")
        keys = ("category", "split", "label", "defect_kind", "captured_at")
        assert [found["a.png"][key] for key in keys] == ["lid", "train", "normal", None, "2026-11-29T23:04:05+01:00"]
        assert [found["b.png"][key] for key in keys] == ["lid", "test", "anomalous", "scratch", None]
        assert [found["c.png"][key] for key in keys] == ["base", "archive", None, None, None]
        assert [mask["mask"] for mask in found["b.png"]["masks"]] == [mask_png()]
        assert metadata(found["a.png"]) == {"time": "2026-11-29T23:04:05+01:00", "serial": "A-1", "line": "7", "ø": "x"}
        assert metadata(found["b.png"]) == {"serial": "A-2"}

    @pytest.mark.parametrize("written", ["\u00e4", "a\u0308", "\\u00e4", "a\\u0308"])
    def test_unicode_form_of_the_manifest_may_differ_from_that_of_the_files(
        self, tmp_path: Path, ingest: Ingest, written: str
    ) -> None:
        images(tmp_path, "a\u0308/a\u0308.png", "\u00e4/b.png", "\u00e4/a\u0308-2.png")
        write(tmp_path / "a\u0308/mask.png", mask_png())
        manifest = write_manifest(
            tmp_path,
            f'{{"path": "{written}/{written}.png", "label": "bad", "mask": "{written}/mask.png"}}',
            f'{{"path": "{written}/b.png"}}',
            f'{{"path": "{written}/{written}-2.png"}}',
            f'{{"path": "{written}/c.png"}}',
        )
        report = ingest(tmp_path, tmp_path / "ar", manifest=manifest)
        assert (report.taken, report.attached) == (3, 1)
        (missing,) = report.rejected
        assert "does not exist" in missing.reason
        assert [mask["mask"] for mask in by_name(tmp_path / "ar")["a\u0308.png"]["masks"]] == [mask_png()]
        again = ingest(tmp_path, tmp_path / "ar", manifest=manifest)
        assert (again.taken, again.known) == (0, 3)

    def test_json_lines_give_the_same(self, tmp_path: Path, ingest: Ingest) -> None:
        images(tmp_path, "a.png", "b.png")
        for name in ("1.png", "2.png"):
            write(tmp_path / name, mask_png())
        line = {"path": "a.png", "label": "anomalous", "mask": ["1.png", "2.png"], "lot": 12, "hot": True, "none": None}
        manifest = write_manifest(tmp_path, json.dumps(line), "", json.dumps({"path": "b.png"}))
        assert ingest(tmp_path, tmp_path / "ar", manifest=manifest, category="lid", split="test").taken == 2
        found = by_name(tmp_path / "ar")
        assert metadata(found["a.png"]) == {"lot": "12", "hot": "true"}
        assert len(found["a.png"]["masks"]) == 2
        assert {row["category"] for row in found.values()} == {"lid"}
        assert {row["split"] for row in found.values()} == {"test"}

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_other_delimiters_are_recognised(self, tmp_path: Path, ingest: Ingest, delimiter: str) -> None:
        images(tmp_path, "a.png")
        manifest = write_manifest(tmp_path, f"\ufeffpath{delimiter}serial", f"a.png{delimiter}1,5")
        ingest(tmp_path, tmp_path / "ar", manifest=manifest)
        assert metadata(by_name(tmp_path / "ar")["a.png"]) == {"serial": "1,5"}

    def test_empty_columns_of_a_spreadsheet_are_left_out(self, tmp_path: Path, ingest: Ingest) -> None:
        images(tmp_path, "a.png")
        manifest = write_manifest(tmp_path, "path;serial;;", "a.png;7;;")
        assert ingest(tmp_path, tmp_path / "ar", manifest=manifest).taken == 1
        assert metadata(by_name(tmp_path / "ar")["a.png"]) == {"serial": "7"}

    def test_category_selects_lines(self, tmp_path: Path, ingest: Ingest) -> None:
        images(tmp_path, "a.png", "b.png", "c.png")
        manifest = write_manifest(tmp_path, "path,category", "a.png,lid", "b.png,base", "c.png,")
        report = ingest(tmp_path, tmp_path / "ar", manifest=manifest, category="lid")
        assert (report.taken, report.rejected) == (2, ())
        assert {name: row["category"] for name, row in by_name(tmp_path / "ar").items()} == {
            "a.png": "lid",
            "c.png": "lid",
        }

    def test_image_of_a_folder_is_known_and_new_metadata_are_reported(self, tmp_path: Path, ingest: Ingest) -> None:
        images(tmp_path / "lid", "a.png")
        ingest(tmp_path / "lid", tmp_path / "ar", layout="folder")
        manifest = write_manifest(tmp_path, "path", "lid/a.png")
        report = ingest(tmp_path, tmp_path / "ar", manifest=manifest, category="lid")
        assert (report.known, report.warnings) == (1, ())
        manifest = write_manifest(tmp_path, "path,serial", "lid/a.png,7")
        report = ingest(tmp_path, tmp_path / "ar", manifest=manifest, category="lid")
        assert report.known == 1
        assert "defect or metadata" in report.warnings[0]

    def test_objects_of_a_bucket_are_read(self, tmp_path: Path, ingest: Ingest, s3_prefix: str) -> None:
        root = Location.parse(s3_prefix)
        (root / "raw/a.png").write_bytes(png(1))
        (root / "m.jsonl").write_bytes(f'{{"path": "{s3_prefix}/raw/a.png"}}\n{{"path": "b.png"}}\n'.encode())
        options = {"manifest": f"{s3_prefix}/m.jsonl", "category": "lid"}
        report = ingest(f"{s3_prefix}/raw", tmp_path / "ar", **options)
        assert report.taken == 1
        assert [entry.source_uri for entry in report.rejected] == [f"{s3_prefix}/m.jsonl:2"]
        again = ingest(f"{s3_prefix}/raw", tmp_path / "ar", **options)
        assert (again.taken, again.known) == (0, 1)
        assert next(iter(root.list(suffix="a.png"))).version == (root / "raw/a.png").info().version

    def test_wrong_bucket_costs_its_line(self, tmp_path: Path, ingest: Ingest, s3_prefix: str) -> None:
        root = Location.parse(s3_prefix)
        (root / "a.png").write_bytes(png(1))
        paths = [f"{s3_prefix}/a.png", "s3://no-such-bucket-here/b.png", "s3://not a bucket/c.png"]
        (root / "m.jsonl").write_bytes("\n".join(json.dumps({"path": path}) for path in paths).encode())
        report = ingest(s3_prefix, tmp_path / "ar", manifest=f"{s3_prefix}/m.jsonl", category="lid")
        assert report.taken == 1
        reasons = [entry.reason for entry in report.rejected]
        assert ["no such bucket" in reasons[0], "Invalid bucket name" in reasons[1]] == [True, True]


class TestBadLines:
    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (b'{"path": "a.png"', "not valid JSON"),
            (b'["a.png"]', "not a JSON object"),
            (b'{"path": "\xff.png"}', "not UTF-8 text"),
            (b'{"path": "\\ud800.png"}', "not Unicode text"),
            (b'{"label": "normal"}', "path is missing"),
            (b'{"path": 7}', "path is 7, not a text"),
            (b'{"path": "a.png", "label": "fine"}', "label 'fine' is neither normal nor anomalous"),
            (b'{"path": "a.png", "split": "night"}', "split 'night' is none of train, validation, test, archive"),
            (b'{"path": "a.png", "defect_kind": "dent"}', "need the label anomalous"),
            (b'{"path": "a.png", "time": "yesterday"}', "time 'yesterday' is not ISO 8601"),
            (b'{"path": "a.png", "lot": {"a": 1}}', "column 'lot' holds a list or an object"),
            (b'{"path": "a.png", "Lot": 1, "lot": 2}', "column 'lot' occurs twice"),
            (b'{"path": "a.png", "Label": "good", "label": "bad"}', "column 'label' occurs twice"),
            (b'{"path": "' + b"y" * 300 + b'.png"}', "does not exist"),
            (b'{"path": "a.png", "x": "' + b"y" * (MAX_VALUE + 1) + b'"}', "at most 100 characters in a name"),
            (b'{"path": "../a.png"}', "is not a relative path below"),
            (b'{"path": "http://x/a.png"}', "the scheme `http` is not supported"),
            (b'{"path": "gone.png"}', "gone.png does not exist"),
            (b'{"path": "folder"}', "not a regular file"),
            (b'{"path": "a.txt"}', "suffix .txt"),
            (b'{"path": "good.png"}', "the same image and category as line 1"),
        ],
    )
    def test_bad_line_costs_itself_alone(self, tmp_path: Path, ingest: Ingest, line: bytes, reason: str) -> None:
        images(tmp_path, "good.png", "last.png", "a.png", "folder/x.png")
        (tmp_path / "m").write_bytes(b'{"path": "good.png"}\n' + line + b'\n{"path": "last.png"}')
        report = ingest(tmp_path, tmp_path / "ar", manifest=str(tmp_path / "m"))
        assert report.taken == 2
        (rejected,) = report.rejected
        assert rejected.source_uri == f"{tmp_path}/m:2"
        assert reason in rejected.reason

    @pytest.mark.parametrize(
        ("line", "reason"),
        [('"a.png,1', "not valid CSV"), ("a.png", "1 cells for 2 columns"), (",1", "path is missing")],
    )
    def test_open_quote_in_csv_costs_one_line(self, tmp_path: Path, ingest: Ingest, line: str, reason: str) -> None:
        images(tmp_path, "a.png", "b.png")
        report = ingest(tmp_path, tmp_path / "ar", manifest=write_manifest(tmp_path, "path,serial", line, "b.png,2"))
        assert report.taken == 1
        assert reason in report.rejected[0].reason

    def test_missing_mask_is_reported_and_its_image_taken(self, tmp_path: Path, ingest: Ingest) -> None:
        images(tmp_path, "a.png", "b.png")
        lines = ("path,label,mask", "a.png,bad,gone.png", "b.png,good,a.png")
        report = ingest(tmp_path, tmp_path / "ar", manifest=write_manifest(tmp_path, *lines))
        assert report.taken == 2
        assert {entry.source_uri: entry.reason for entry in report.rejected} == {
            f"{tmp_path}/gone.png": "does not exist",
            f"{tmp_path}/m.manifest:3": "mask of an image that is normal; the image is taken",
        }

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "is empty"),
            ("image,label\na,b", "no image manifest"),
            ("[" + '{"path": "a.png"},' * 10_000 + "]", "no image manifest"),
            ("path,x,x\n", "'x' occurs twice"),
        ],
    )
    def test_file_that_is_no_manifest_is_refused(self, tmp_path: Path, ingest: Ingest, text: str, reason: str) -> None:
        with pytest.raises(ArchiveError, match=reason):
            ingest(tmp_path, tmp_path / "ar", manifest=write_manifest(tmp_path, text))

    def test_layout_is_refused(self, tmp_path: Path, ingest: Ingest) -> None:
        with pytest.raises(ArchiveError, match="--layout does not go with --manifest"):
            ingest(tmp_path, tmp_path / "ar", manifest="m", layout="mvtec")


class TestLookout:
    def test_masks_become_grey_values_that_name_the_defects(self, tmp_path: Path, ingest: Ingest) -> None:
        images(tmp_path, "good.png", "bad.png", "other.png", "plain.png")
        write(tmp_path / "m.png", color_mask(scratch=(0, 0, 4, 8), dent=(10, 10, 12, 12)))
        manifest = write_manifest(
            tmp_path,
            lookout_line(f"{tmp_path}/good.png", serial="A-1", camera="top"),
            lookout_line(f"{tmp_path}/bad.png", "anomaly", f"{tmp_path}/m.png", serial="A-2"),
            lookout_line(f"{tmp_path}/other.png", "Anomaly"),
            lookout_line(f"{tmp_path}/plain.png", None),
        )
        report = ingest(tmp_path, tmp_path / "ar", manifest=manifest, category="circuit", split="test")
        assert (report.taken, report.attached, report.rejected) == (4, 1, ())
        found = by_name(tmp_path / "ar")
        assert {name: row["label"] for name, row in found.items()} == {
            "good.png": "normal",
            "bad.png": "anomalous",
            "other.png": "anomalous",
            "plain.png": None,
        }
        assert {row["defect_kind"] for row in found.values()} == {None, "dent+scratch"}
        assert metadata(found["good.png"]) == {"serial": "A-1", "camera": "top"}
        (mask,) = found["bad.png"]["masks"]
        values = np.asarray(Image.open(io.BytesIO(mask["mask"])))
        assert [int((values == value).sum()) for value in (0, 1, 2)] == [32 * 32 - 32 - 4, 32, 4]
        assert (values[0, 7], values[11, 11], values[20, 20]) == (1, 2, 0)

    def test_names_of_the_labels_are_free(self, tmp_path: Path, ingest: Ingest) -> None:
        images(tmp_path, "a.png")
        write(tmp_path / "m.png", color_mask(dent=(0, 0, 2, 2)))
        line = (
            lookout_line("a.png", "anomaly", "m.png").replace("anomaly-label", "job-7").replace("anomaly-mask", "seg")
        )
        ingest(tmp_path, tmp_path / "ar", manifest=write_manifest(tmp_path, line))
        row = by_name(tmp_path / "ar")["a.png"]
        assert (row["label"], row["defect_kind"], row["metadata"]) == ("anomalous", "dent", [])

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("#2ca02c", "green", "hex-color 'green' of class 'scratch'"),
            ("#2ca02c", "#1F77B4", "belongs to two classes"),
            ("#2ca02c", "#ffffff", "color of the background"),
            ('"class-name": "anomaly"', '"class-name": "cat"', "label 'cat'"),
        ],
    )
    def test_wrong_color_maps_and_labels_are_rejected(
        self, tmp_path: Path, ingest: Ingest, old: str, new: str, reason: str
    ) -> None:
        images(tmp_path, "a.png")
        write(tmp_path / "m.png", color_mask())
        line = lookout_line("a.png", "anomaly", "m.png").replace(old, new)
        report = ingest(tmp_path, tmp_path / "ar", manifest=write_manifest(tmp_path, line))
        assert report.taken == 0
        assert reason in report.rejected[0].reason

    def test_mask_with_another_color_is_reported_and_its_image_taken(self, tmp_path: Path, ingest: Ingest) -> None:
        images(tmp_path, "a.png")
        pixels = np.full((8, 8, 3), 255, np.uint8)
        pixels[3, 5] = (1, 2, 3)
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "PNG")
        write(tmp_path / "m.png", sink.getvalue())
        manifest = write_manifest(tmp_path, lookout_line("a.png", "anomaly", "m.png"))
        report = ingest(tmp_path, tmp_path / "ar", manifest=manifest)
        assert outcome(report)["taken"] == 1
        assert "#010203 in row 3, column 5" in report.rejected[0].reason


def test_colors_are_matched_exactly() -> None:
    values = np.asarray(
        Image.open(io.BytesIO(labelled_mask(color_mask(4, scratch=(1, 1, 2, 3)), CLASSES, ImageLimits())))
    )
    expected = np.zeros((4, 4), np.uint8)
    expected[1, 1:3] = 1
    np.testing.assert_array_equal(values, expected)
    with pytest.raises(ImageError, match="4 pixels have colors that are not in the color map"):
        labelled_mask(color_mask(4, dent=(0, 0, 2, 2)), CLASSES, ImageLimits())
