"""Metrics with review marks on hand-written runs, checked against hand computations."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support.runs import ScoredImage, write_archive, write_run
from support.trees import mask_png, png

from uniad_ray.archive.stores.location import Location
from uniad_ray.cli import cli
from uniad_ray.evaluation.run import EvaluationReport, evaluate
from uniad_ray.reporting.build import report
from uniad_ray.reporting.comparison.build import compare
from uniad_ray.runs.reviews import Mark, MarkKind, write_marks

LOW, HIGH = np.zeros((4, 4), np.float16), np.zeros((4, 4), np.float16)
HIGH[1:3, 1:3] = 1


def good(name: str, score: float, **changes: Any) -> ScoredImage:
    return ScoredImage(name, png(len(name)), score, **{"anomaly_map": LOW, **changes})


def bad(name: str, score: float, **changes: Any) -> ScoredImage:
    base = {"label": "anomalous", "defect_kind": "spot", "anomaly_map": HIGH, "masks": (mask_png(),)}
    return ScoredImage(name, png(len(name), spot=True), score, **{**base, **changes})


IMAGES = [
    good("normal", 0.1),
    good("alarm", 0.7),
    good("overlooked", 0.3),
    bad("found", 0.9),
    bad("wrongly labelled", 0.6, anomaly_type="structural"),
    good("new", 0.8, label=None),
    good("trained", 0.1, split="train"),
]


def make_run(root: Path, images: list[ScoredImage] = IMAGES, name: str = "run") -> Location:
    archive = write_archive(root / "archive", images)
    return write_run(root / name, archive, images)


def mark(run: Location, name: str, kind: MarkKind, *, threshold: float = 0.5, at: int = 0) -> None:
    (image,) = (image for image in IMAGES if image.name == name)
    assert image.score is not None
    time = f"2026-11-27T10:00:{at:02d}.000000+00:00"
    write_marks(run, [Mark(image.row_key, image.category, kind, image.score, threshold, "anna", time)])


def metrics_of(found: EvaluationReport, **wanted: Any) -> dict[str, float | None]:
    chosen = {"category": "part", "group": "all", "name": "all", "expert": None, "limit": None, **wanted}
    return {
        entry.metric: entry.value
        for entry in found.metrics
        if all(getattr(entry, key) == value for key, value in chosen.items())
    }


def test_marks_give_labels_and_override_them(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    # Normal 0.1, 0.7, 0.3; anomalous 0.9, 0.6: five of six pairs are in order.
    before = metrics_of(evaluate(run.uri, resamples=0))
    assert before["image_auroc"] == pytest.approx(5 / 6)
    assert (before["false_positive_rate"], before["recall"]) == (pytest.approx(1 / 3), 1.0)
    mark(run, "overlooked", "miss")
    mark(run, "wrongly labelled", "false_alarm")
    mark(run, "new", "confirmed")
    mark(run, "alarm", "confirmed", threshold=0.75)
    # Normal 0.1, 0.7, 0.6; anomalous 0.3, 0.9, 0.8: 1 + 3 + 3 of nine pairs are in order.
    found = evaluate(run.uri, resamples=0)
    after = metrics_of(found)
    assert after["image_auroc"] == pytest.approx(7 / 9)
    assert (after["false_positive_rate"], after["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.marked_images == 4
    assert found.unlabelled_images == 0
    assert "4 images are labelled by reviewers' marks (1 false alarm, 1 miss, 2 confirmed decisions)" in found.notes
    without = evaluate(run.uri, with_marks=False, resamples=0)
    assert metrics_of(without) == before
    assert without.marked_images == 0
    assert not any("marks" in note for note in without.notes)


def test_marked_images_have_unknown_defects(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    mark(run, "overlooked", "miss")
    mark(run, "wrongly labelled", "false_alarm")
    found = evaluate(run.uri, resamples=0)
    groups = {(entry.group, entry.name) for entry in found.metrics}
    assert {("defect_kind", "spot"), ("defect_kind", "unknown")} <= groups
    # The only structural anomaly is now normal.
    assert not any(group == "anomaly_type" for group, _ in groups)
    # Anomalous 0.3; normal 0.1, 0.7, 0.6.
    assert metrics_of(found, group="defect_kind", name="unknown")["image_auroc"] == pytest.approx(1 / 3)


def test_marks_apply_to_pixel_metrics(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = evaluate(run.uri, resamples=0)
    mark(run, "overlooked", "miss")
    found = evaluate(run.uri, resamples=0)
    (pixel,) = (entry for entry in found.metrics if entry.metric == "pixel_auroc" and entry.group == "all")
    assert (pixel.normal_images, pixel.anomalous_images) == (2, 2)
    assert "part: 1 anomalous image with no mask, excluded from the pixel metrics" in found.notes
    assert metrics_of(found)["pixel_auroc"] == pytest.approx(metrics_of(before)["pixel_auroc"], abs=0.01)
    mark(run, "wrongly labelled", "false_alarm")
    found = evaluate(run.uri, resamples=0)
    (pixel,) = (entry for entry in found.metrics if entry.metric == "pixel_auroc" and entry.group == "all")
    assert (pixel.normal_images, pixel.anomalous_images) == (3, 1)
    # The map is equally high on the square that is now normal and on the anomalous one.
    assert metrics_of(found)["pixel_auroc"] < metrics_of(before)["pixel_auroc"]  # type: ignore[operator]


def test_withdrawn_marks_and_other_splits_are_ignored(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = evaluate(run.uri, resamples=0)
    mark(run, "trained", "miss")
    mark(run, "alarm", "confirmed", at=1)
    mark(run, "alarm", "none", at=2)
    found = evaluate(run.uri, resamples=0)
    assert found.metrics == before.metrics
    assert set(found.notes) == {"1 mark on images outside the evaluated splits, not used", *before.notes}


def test_comparison_uses_latest_mark_of_any_run(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", IMAGES)
    runs = [write_run(tmp_path / name, archive, IMAGES, threshold=at) for name, at in (("one", 0.5), ("two", 0.75))]
    mark(runs[0], "wrongly labelled", "confirmed", at=1)
    mark(runs[1], "wrongly labelled", "false_alarm", threshold=0.5, at=2)
    found = compare([run.uri for run in runs], resamples=0)
    (change,) = found.changes
    # At threshold 0.75, 0.7 and 0.6 are called normal, which matches label and mark.
    assert (change.changed, change.labelled, change.mended, change.broken) == (2, 2, 2, 0)
    assert "1 image is labelled by reviewers' marks (1 false alarm)" in found.notes
    (change,) = compare([run.uri for run in runs], with_marks=False, resamples=0).changes
    assert (change.labelled, change.mended, change.broken) == (2, 1, 1)


def test_report_applies_marks(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    mark(run, "new", "false_alarm")
    mark(run, "overlooked", "miss")

    def category(**options: Any) -> dict[str, Any]:
        path = report(run.uri, format="json", resamples=0, **options).path
        (found,) = json.load(io.BytesIO(Location.parse(path).read_bytes()))["categories"]
        return dict(found)

    assert {name: category()[name] for name in ("normal_images", "false_alarms", "misses")} == {
        "normal_images": 3,
        "false_alarms": 2,
        "misses": 1,
    }
    assert (category(with_marks=False)["false_alarms"], category(with_marks=False)["misses"]) == (1, 0)


def test_without_marks_option_ignores_marks(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    mark(run, "overlooked", "miss")
    verb = ["evaluate", run.uri, "--resamples", "0", "--json", "--quiet"]
    for options, marked in (([], 1), (["--without-marks"], 0)):
        ended = CliRunner().invoke(cli, [*verb, *options])
        assert ended.exit_code == 0, ended.output
        assert json.loads(ended.stdout)["marked_images"] == marked
