"""Comparison of hand-written runs on one archive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.runs import ScoredImage, write_archive, write_run
from support.trees import mask_png, png

from uniad_ray.cli.verbs.results.compare import as_text
from uniad_ray.errors import RunError
from uniad_ray.metrics.difference import Difference
from uniad_ray.reporting.comparison.build import compare
from uniad_ray.reporting.comparison.model import ComparisonReport

FLAT = np.zeros((8, 8), np.float16)
SPOT = FLAT.copy()
SPOT[2:6, 2:6] = 1


def images() -> list[ScoredImage]:
    return [
        *(ScoredImage(f"good{index}", png(index), index / 10, anomaly_map=FLAT) for index in range(5)),
        *(
            ScoredImage(
                f"bad{index}",
                png(index, spot=True),
                (3 + index) / 10,
                "anomalous",
                "spot",
                "structural",
                anomaly_map=SPOT,
                masks=(mask_png(),),
            )
            for index in range(4)
        ),
        ScoredImage("new", png(50), 0.2, label=None),
    ]


def rescored(changes: dict[str, float | None], *, anomaly_map: np.ndarray | None = None) -> list[ScoredImage]:
    every = [replace(image, score=changes.get(image.name, image.score)) for image in images()]
    if anomaly_map is None:
        return every
    return [replace(image, anomaly_map=anomaly_map) for image in every]


def compared(root: Path, *others: list[ScoredImage], out: str | None = None, resamples: int = 200) -> ComparisonReport:
    archive = write_archive(root / "archive", images())
    runs = [write_run(root / f"run{index}", archive, scored).uri for index, scored in enumerate((images(), *others))]
    return compare(runs, out=out, resamples=resamples)


def difference(report: ComparisonReport, metric: str, limit: float | None = None, run: int = 1) -> Difference:
    (found,) = (
        entry
        for entry in report.differences
        if (entry.metric, entry.limit, entry.group) == (metric, limit, "all") and entry.run == report.runs[run].run
    )
    return found


def test_equal_runs_have_no_differences(tmp_path: Path) -> None:
    report = compared(tmp_path, images())
    assert report.differences
    for entry in report.differences:
        assert entry.difference in (0, None)
        assert (entry.low, entry.high) in ((0, 0), (None, None))
        assert not entry.is_significant
    for metric, limit in (("image_auroc", None), ("recall", None), ("pixel_auroc", None), ("pixel_spro", 0.05)):
        assert difference(report, metric, limit).low == 0
    assert report.changes[0].changed == 0
    assert report.changes[0].images == len(images())


def test_differences_have_paired_intervals(tmp_path: Path) -> None:
    # In the baseline 17 of the 20 pairs are in order and two are ties; in the other run all are in order.
    better = rescored({f"bad{index}": 0.9 for index in range(4)})
    report = compared(tmp_path, better)
    auroc = difference(report, "image_auroc")
    assert (auroc.baseline, auroc.value) == (pytest.approx(18 / 20), 1.0)
    assert auroc.difference == pytest.approx(2 / 20)
    assert auroc.low is not None
    assert auroc.high is not None
    assert 0 <= auroc.low <= auroc.difference <= auroc.high  # type: ignore[operator]
    recall = difference(report, "recall")
    assert (recall.baseline, recall.value, recall.difference) == (0.25, 1.0, 0.75)
    assert recall.is_significant
    assert (auroc.normal_images, auroc.anomalous_images) == (5, 4)


def test_pixel_metrics_are_compared(tmp_path: Path) -> None:
    report = compared(tmp_path, rescored({}, anomaly_map=FLAT))
    pixel = difference(report, "pixel_auroc")
    assert pixel.value == 0.5
    assert pixel.difference is not None
    assert pixel.difference < -0.4
    assert pixel.is_significant
    assert difference(report, "pixel_spro", 0.05).difference < 0  # type: ignore[operator]


def test_changed_images_are_sorted_by_score_shift(tmp_path: Path) -> None:
    report = compared(tmp_path, rescored({"good1": 0.6, "bad3": 0.4, "new": 0.9, "bad0": 0.55}))
    (changes,) = report.changes
    assert (changes.images, changes.changed, changes.to_anomalous, changes.to_normal) == (10, 4, 3, 1)
    assert (changes.labelled, changes.mended, changes.broken) == (3, 1, 2)
    listed = [(Path(image.source_uri).name, image.decision, image.is_mended) for image in report.changed_images]
    assert listed == [
        ("new", "anomalous", None),
        ("good1", "anomalous", False),
        ("bad0", "anomalous", True),
        ("bad3", "normal", False),
    ]
    shown = as_text(report)
    assert (
        "4 of 10 decisions differ from run 1: 3 became anomalous, 1 became normal; "
        "by their labels, 1 became right, 2 became wrong"
    ) in shown


def test_images_unscored_in_one_run_are_left_out(tmp_path: Path) -> None:
    report = compared(tmp_path, rescored({"good4": None}))
    auroc = difference(report, "image_auroc")
    assert (auroc.normal_images, auroc.baseline) == (4, auroc.value)
    assert any("1 images could not be scored" in note for note in report.notes)
    assert any("1 images were scored in only one of the runs" in note for note in report.notes)


def test_several_runs_are_compared_with_the_first(tmp_path: Path) -> None:
    report = compared(tmp_path, images(), rescored({"bad0": 0.9}), resamples=0)
    assert difference(report, "image_auroc").difference == 0
    assert difference(report, "image_auroc", run=2).difference > 0  # type: ignore[operator]
    assert difference(report, "image_auroc", run=2).low is None
    assert [entry.changed for entry in report.changes] == [0, 1]


def test_without_labels_only_decisions_are_compared(tmp_path: Path) -> None:
    plain = [replace(image, label=None, defect_kind=None, anomaly_type=None, masks=()) for image in images()]
    archive = write_archive(tmp_path / "archive", plain)
    moved = [replace(image, score=0.9 if image.name == "new" else image.score) for image in plain]
    runs = [write_run(tmp_path / f"{index}", archive, scored).uri for index, scored in enumerate((plain, moved))]
    report = compare(runs)
    assert report.differences == ()
    assert report.changes[0].changed == 1
    assert any("no image has a label" in note for note in report.notes)


def test_incomparable_runs_are_refused(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", images())
    first = write_run(tmp_path / "first", archive, images()).uri
    other = write_archive(tmp_path / "other", images()[:5])
    second = write_run(tmp_path / "second", other, images()[:5]).uri
    with pytest.raises(RunError, match="cannot compare a single run"):
        compare([first])
    with pytest.raises(RunError, match="the same run is named twice"):
        compare([first, first])
    with pytest.raises(RunError, match="scored a different archive"):
        compare([first, second])
    with pytest.raises(RunError, match="no run there"):
        compare([first, str(tmp_path / "none")])


def test_page_has_metrics_and_pictures_and_escapes_names(tmp_path: Path) -> None:
    hostile = [replace(image, name=image.name.replace("new", "<script>new")) for image in images()]
    archive = write_archive(tmp_path / "archive", hostile)
    moved = [replace(image, score=0.9 if "new" in image.name else image.score) for image in hostile]
    runs = [write_run(tmp_path / f"{index}", archive, scored).uri for index, scored in enumerate((hostile, moved))]
    out = tmp_path / "compare.html"
    report = compare(runs, out=str(out), resamples=20)
    page = out.read_text()
    assert report.path == str(out)
    assert "Image AUROC" in page.replace("<wbr>", "")
    assert "1 of 10 decisions differ" in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert "<script" not in page
    assert "&lt;script&gt;new" in page
    assert 'src="http' not in page
    compare(runs, out=str(tmp_path / "again.html"), resamples=20)
    assert (tmp_path / "again.html").read_bytes() == out.read_bytes()


def test_page_marks_significant_differences(tmp_path: Path) -> None:
    found_more = rescored({f"bad{index}": 0.9 for index in range(4)})
    more_alarms = rescored({f"good{index}": 0.9 for index in range(5)})
    archive = write_archive(tmp_path / "archive", images())
    first, second, third = (
        write_run(tmp_path / f"{index}", archive, scored).uri
        for index, scored in enumerate((images(), found_more, more_alarms))
    )
    for other, said in ((second, "<strong>+75.0 better</strong>"), (third, "<strong>+100.0 worse</strong>")):
        out = tmp_path / "compare.html"
        compare([first, other], out=str(out), resamples=100)
        assert said in out.read_text("utf-8")
