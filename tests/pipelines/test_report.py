"""Reports of hand-written runs, on the local disk and on S3."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.profiles import small_config
from support.runs import ScoredImage, write_archive, write_run
from support.trees import mask_png, png

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import RunError
from uniad_ray.reporting.build import Format, ReportResult, report
from uniad_ray.runs.timings import StageSeconds, Timing, write_timing
from uniad_ray.scoring.bundles.bundle import CalibrationRecord
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.calibration import ExpertCalibration, Threshold

FORMATS: tuple[Format, ...] = ("html", "json", "parquet", "markdown")


def labelled() -> list[ScoredImage]:
    anomaly_map = np.linspace(0, 1, 16, dtype=np.float16).reshape(4, 4)
    return [
        *(ScoredImage(f"train{index}.png", png(index), 0.1, split="train") for index in range(3)),
        *(ScoredImage(f"good{index}.png", png(10 + index), 0.2 * index, anomaly_map=anomaly_map) for index in range(4)),
        *(
            ScoredImage(
                f"spot{index}.png",
                png(20 + index, spot=True),
                0.3 * index,
                "anomalous",
                "spot",
                "structural",
                anomaly_map=anomaly_map,
                masks=(mask_png(),),
                reasons=("patch: strongest in the middle",),
            )
            for index in range(4)
        ),
        ScoredImage("broken.png", b"nonsense", None, "anomalous", "spot"),
        ScoredImage("new.png", png(30), 0.9, label=None),
    ]


def unlabelled() -> list[ScoredImage]:
    return [ScoredImage(f"{index}.png", png(index), 0.2 * index, label=None, split="archive") for index in range(5)]


def make_run(root: str | Path, images: list[ScoredImage]) -> Location:
    return write_run(f"{root}/run", write_archive(f"{root}/archive", images), images)


def write(run: Location, format_name: Format) -> tuple[ReportResult, bytes]:
    result = report(run.uri, format=format_name, resamples=20)
    return result, Location.parse(result.path).read_bytes()


def edit_manifest(run: Location, **changes: Any) -> None:
    location = run / "manifest.json"
    document = location.read_json()
    document["plan"] |= changes.pop("plan", {})
    location.write_json(document | changes)


@pytest.mark.parametrize("format_name", FORMATS)
def test_report_bytes_and_path_are_deterministic(store_root: str, format_name: Format) -> None:
    run = make_run(store_root, labelled())
    result, data = write(run, format_name)
    assert result.path == f"{run}/report/report.{'md' if format_name == 'markdown' else format_name}"
    assert (result.run_id, result.images, result.bytes) == (run_id(run), 13, len(data))
    assert write(run, format_name)[1] == data
    elsewhere = f"{store_root}/elsewhere/file"
    assert report(run.uri, format=format_name, out=elsewhere, resamples=20).path == elsewhere
    assert Location.parse(elsewhere).read_bytes() == data


def run_id(run: Location) -> str:
    return str((run / "manifest.json").read_json()["run_id"])


def test_document_matches_the_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path, labelled())
    document = json.loads(write(run, "json")[1])
    assert document["run"]["images"] == 13
    assert document["run"]["errors"] == 1
    (part,) = document["categories"]
    # Scores of the test split: normal 0, 0.2, 0.4 and 0.6; anomalous 0, 0.3, 0.6 and 0.9; the threshold is 0.5.
    assert {name: part[name] for name in ("split", "threshold", "normal_images", "anomalous_images")} == {
        "split": "test",
        "threshold": 0.5,
        "normal_images": 4,
        "anomalous_images": 4,
    }
    assert (part["false_alarms"], part["misses"], part["called_anomalous"]) == (1, 2, 4)
    (detail,) = document["details"]
    assert {name: sum(counts) for name, counts in detail["histogram"]["counts"].items()} == {
        "normal": 4,
        "structural": 4,
        "unlabelled": 1,
    }
    sections = {entry["kind"]: [image["source_uri"] for image in entry["images"]] for entry in detail["gallery"]}
    assert sections["false_alarms"] == ["/source/part/good3.png"]
    assert sections["misses"] == ["/source/part/spot0.png", "/source/part/spot1.png"]
    assert document["error_kinds"] == {"truncated": 1}
    assert document["errors"][0]["source_uri"] == "/source/part/broken.png"
    aurocs = [row["value"] for row in document["metrics"] if (row["metric"], row["expert"]) == ("image_auroc", "patch")]
    assert detail["experts"][0]["image_auroc"]["value"] == aurocs[0]


def test_page_shows_images_of_the_archive(tmp_path: Path) -> None:
    result, data = write(make_run(tmp_path, labelled()), "html")
    assert result.detailed == ("part",)
    assert (result.pictures, result.missing_pictures) == (9, 0)
    assert data.count(b'<img class="heat"') > 8
    assert data.count(b'<img class="outline"') >= 4


@pytest.mark.parametrize("format_name", FORMATS)
def test_unlabelled_run_gets_a_report(tmp_path: Path, format_name: Format) -> None:
    run = make_run(tmp_path, unlabelled())
    result, data = write(run, format_name)
    assert result.images == 5
    if format_name == "parquet":
        table = pq.read_table(io.BytesIO(data))
        dataset_schema("metric").check(table, source="the report")
        assert table.column("metric").to_pylist() == ["scored_images", "error_images", "images_called_anomalous"]
        assert table.column("value").to_pylist() == [5, 0, 2]
    if format_name == "json":
        assert json.loads(data)["details"][0]["curves"] is None


def test_training_images_are_shown_without_metrics(tmp_path: Path) -> None:
    images = [ScoredImage(f"{index}.png", png(index), 0.2 * index, split="train") for index in range(5)]
    run = make_run(tmp_path, images)
    (part,) = json.loads(write(run, "json")[1])["categories"]
    assert (part["split"], part["normal_images"], part["false_alarms"]) == (None, 0, 0)
    assert b"Highest scores" in write(run, "html")[1]


def test_category_without_scores_is_only_counted(tmp_path: Path) -> None:
    images = [*unlabelled(), *(ScoredImage(f"{index}", b"x", None, category="broken") for index in range(3))]
    run = make_run(tmp_path, images)
    for format_name in FORMATS:
        write(run, format_name)
    document = json.loads(write(run, "json")[1])
    assert [(entry["category"], entry["errors"], entry["threshold"]) for entry in document["categories"]] == [
        ("broken", 3, None),
        ("part", 0, 0.5),
    ]
    assert [entry["category"] for entry in document["details"]] == ["part"]


def test_page_marks_images_of_a_missing_archive(tmp_path: Path) -> None:
    run = make_run(tmp_path, labelled())
    Location.parse(tmp_path / "archive").delete_tree()
    result, data = write(run, "html")
    assert (result.pictures, result.missing_pictures) == (0, 9)
    assert b"The archive cannot be read" in data


def test_missing_bundle_is_noted_and_present_one_described(tmp_path: Path) -> None:
    run = make_run(tmp_path, labelled())
    (part,) = json.loads(write(run, "json")[1])["categories"]
    assert part["lineage"] is None
    assert "no bundle there" in part["lineage_problem"]

    calibration = CalibrationRecord(
        method="cross_fit",
        fit_images=3,
        held_out_images=3,
        experts={"patch": ExpertCalibration(mean=0.0, deviation=1.0)},
        terms={"patch": ExpertCalibration(mean=0.0, deviation=1.0)},
        threshold=Threshold(value=0.5, false_positive_rate=0.1, method="gaussian_tail", images=3),
    )
    weights = {"uri": "random:0", "sha256": "e" * 64, "trained": False}
    origin = {"archive": {"uri": "/reference", "digest": "f" * 64}, "extractors": {"pyramid": {"weights": weights}}}
    store = BundleStore(str(tmp_path / "bundles"))
    written = store.write("part", small_config(), calibration, origin, {})
    planned = {"version": written.version, "digest": written.digest}
    edit_manifest(run, plan={"bundle_root": store.root.uri, "bundles": {"part": planned}}, random_weights=True)
    document = json.loads(write(run, "json")[1])
    lineage = document["categories"][0]["lineage"]
    assert lineage["networks"] == [{"name": "pyramid", **weights}]
    assert (lineage["calibration"], lineage["fit_images"]) == ("cross_fit", 3)
    assert lineage["expert_weights"] == {"patch": 1.0}
    page = write(run, "html")[1]
    assert b"Random weights." in page
    assert b"random:0" in page

    edit_manifest(run, plan={"bundles": {"part": planned | {"digest": "0" * 64}}})
    (part,) = json.loads(write(run, "json")[1])["categories"]
    assert "changed after the run" in part["lineage_problem"]


def test_timings_are_reported_by_stage(tmp_path: Path) -> None:
    run = make_run(tmp_path, labelled())
    seconds = StageSeconds(decode=1.0, score=8.0, write=0.5, wall=10.0)
    timing = Timing(
        started_at="2026-11-21T10:00:00+00:00",
        images=13,
        chunks=5,
        workers=2,
        threads=1,
        device="cpu",
        seconds=seconds,
    )
    write_timing(run, timing)
    (stored,) = json.loads(write(run, "json")[1])["timings"]
    assert (stored["images"], stored["score"], stored["wall"]) == (13, 8.0, 10.0)
    assert b"2026-11-21 10:00:00" in write(run, "html")[1]


def test_unfinished_run_has_no_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, labelled())
    (run / "manifest.json").delete()
    with pytest.raises(RunError, match="the run is not finished"):
        report(run.uri)
    with pytest.raises(RunError, match="no run there"):
        report(str(tmp_path / "nowhere"))
