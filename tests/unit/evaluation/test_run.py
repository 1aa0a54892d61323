"""Metrics of hand-written runs against values computed by hand, and notes on what is left out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.runs import ScoredImage, write_archive, write_run
from support.trees import mask_png, png

from uniad_ray.cli.verbs.results.evaluate import as_text
from uniad_ray.evaluation.run import METRICS_PATH, EvaluationReport, evaluate
from uniad_ray.metrics.metric import Metric

LOW, HIGH = np.zeros((4, 4), np.float16), np.zeros((4, 4), np.float16)
HIGH[1:3, 1:3] = 1


def encoded(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def good(name: str, score: float | None, **changes: Any) -> ScoredImage:
    return ScoredImage(name, png(len(name)), score, **{"anomaly_map": LOW, **changes})


def bad(name: str, score: float | None, **changes: Any) -> ScoredImage:
    base = {"label": "anomalous", "defect_kind": "spot", "anomaly_map": HIGH, "masks": (mask_png(),)}
    return ScoredImage(name, png(len(name), spot=True), score, **{**base, **changes})


def evaluated(root: Path, images: list[ScoredImage], *, defects: Any = None, maps: str = "all") -> EvaluationReport:
    archive = write_archive(root / "archive", images, defects=defects)
    run = write_run(root / "run", archive, images, maps=maps)
    return evaluate(run.uri, resamples=50)


def metrics_of(report: EvaluationReport, **wanted: Any) -> dict[tuple[str, float | None], Metric]:
    chosen = {"category": "part", "group": "all", "name": "all", "expert": None, **wanted}
    return {
        (entry.metric, entry.limit): entry
        for entry in report.metrics
        if all(getattr(entry, key) == value for key, value in chosen.items())
    }


def test_image_metrics_by_hand(tmp_path: Path) -> None:
    # Five of six pairs are in order. At the threshold 0.5, one of two normal and one of three anomalous are wrong.
    images = [good("a", 0.1), good("b", 0.7), bad("c", 0.9), bad("d", 0.8), bad("e", 0.4)]
    found = {name: entry.value for (name, _), entry in metrics_of(evaluated(tmp_path, images)).items()}
    assert found["image_auroc"] == pytest.approx(5 / 6)
    assert found["image_average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found["image_f1_max"] == pytest.approx(2 * 3 / (4 + 3))
    assert found["threshold_at_f1_max"] == pytest.approx(0.25)
    assert (found["false_positive_rate"], found["recall"], found["precision"]) == (0.5, 2 / 3, 2 / 3)
    assert (found["threshold_at_fpr"], found["recall_at_fpr"]) == (0.7, 2 / 3)


def test_metrics_have_intervals_and_are_stored(tmp_path: Path) -> None:
    images = [good("a", 0.1), good("b", 0.7), good("bb", 0.2), bad("c", 0.9), bad("d", 0.8), bad("e", 0.4)]
    report = evaluated(tmp_path, images)
    entry = metrics_of(report)["image_auroc", None]
    assert entry.low is not None
    assert entry.high is not None
    assert entry.value is not None
    assert entry.low < entry.value <= entry.high
    stored = pq.read_table(tmp_path / "run" / METRICS_PATH).to_pylist()
    assert stored == [entry.model_dump() for entry in report.metrics]


def test_pixel_metrics_follow_from_maps_and_masks(tmp_path: Path) -> None:
    found = metrics_of(evaluated(tmp_path, [good("a", 0.1), bad("c", 0.9)]))
    limits = [limit for name, limit in found if name == "pixel_spro"]
    assert limits == [0.01, 0.05, 0.1, 0.3, 1.0]
    for name in (("pixel_auroc", None), ("pixel_aupro", 0.3), ("pixel_spro", 0.3)):
        value = found[name].value
        assert value is not None
        assert value > 0.95
    assert (found["pixel_auroc", None].normal_images, found["pixel_auroc", None].anomalous_images) == (1, 1)


def test_saturation_areas_are_used(tmp_path: Path) -> None:
    # The map finds a quarter of the mask. That is the saturation area, so it is enough.
    spotty = np.zeros((48, 48), np.float16)
    spotty[16:24, 16:24] = 1
    config = [
        {"defect_name": "spot", "pixel_value": 255, "saturation_threshold": 64, "relative_saturation": False},
    ]
    images = [good("a", 0.1, anomaly_map=np.zeros((48, 48), np.float16)), bad("c", 0.9, anomaly_map=spotty)]
    saturated = metrics_of(evaluated(tmp_path / "with", images, defects={"part": config}))
    plain = metrics_of(evaluated(tmp_path / "without", images))
    assert saturated["pixel_spro", 0.01].value == pytest.approx(1.0)
    assert plain["pixel_spro", 0.01].value == pytest.approx(plain["pixel_spro", 0.01].value)
    assert plain["pixel_spro", 0.01].value < 0.3  # type: ignore[operator]
    assert saturated["pixel_aupro", 0.3].value == plain["pixel_aupro", 0.3].value


def test_groups_are_compared_with_all_normal_images(tmp_path: Path) -> None:
    images = [
        good("a", 0.1),
        good("b", 0.5),
        bad("c", 0.9, anomaly_type="structural"),
        bad("d", 0.3, anomaly_type="logical", defect_kind="gone"),
    ]
    report = evaluated(tmp_path, images)
    for group, name, value in (
        ("all", "all", 0.75),
        ("anomaly_type", "structural", 1.0),
        ("anomaly_type", "logical", 0.5),
        ("defect_kind", "spot", 1.0),
        ("defect_kind", "gone", 0.5),
        ("anomaly_type", "mean", 0.75),
    ):
        entry = metrics_of(report, group=group, name=name)["image_auroc", None]
        assert (entry.value, entry.normal_images) == (value, 2)
    assert "mean of anomaly types" in as_text(report)


def test_each_expert_is_evaluated_alone(tmp_path: Path) -> None:
    images = [
        good("a", 0.1, experts={"patch": 0.0, "text": 1.0}),
        bad("c", 0.9, experts={"patch": 1.0, "text": 0.0}),
    ]
    report = evaluated(tmp_path, images)
    assert metrics_of(report, expert="patch")["image_auroc", None].value == 1.0
    assert metrics_of(report, expert="text")["image_auroc", None].value == 0.0
    assert "image AUROC of each expert alone:" in as_text(report)


def test_mean_of_categories_has_an_interval(tmp_path: Path) -> None:
    images = [
        *(good(f"a{index}", 0.1 * index) for index in range(5)),
        *(bad(f"b{index}", 0.3 + 0.1 * index) for index in range(5)),
        *(good(f"c{index}", 0.1, category="nut") for index in range(3)),
        *(bad(f"d{index}", 0.9, category="nut", masks=()) for index in range(3)),
    ]
    report = evaluated(tmp_path, images)
    one, other, mean = (metrics_of(report, category=name)["image_auroc", None] for name in ("part", "nut", "*"))
    assert mean.value == pytest.approx((one.value + other.value) / 2)  # type: ignore[operator]
    assert mean.low is not None
    assert one.low is not None
    assert other.low == 1.0
    assert mean.low == pytest.approx((one.low + 1) / 2)
    assert (mean.normal_images, mean.anomalous_images) == (8, 8)
    pixel = metrics_of(report, category="*")["pixel_auroc", None]
    assert pixel.value == metrics_of(report)["pixel_auroc", None].value
    assert "nut: no ground-truth masks, so no pixel metrics" in report.notes


def test_run_without_labels_stores_an_empty_table(tmp_path: Path) -> None:
    report = evaluated(tmp_path, [good("a", 0.1, label=None, split="archive")])
    assert report.metrics == ()
    assert report.notes == ("no image has a label, so there are no metrics; label images at ingest",)
    assert pq.read_table(tmp_path / "run" / METRICS_PATH).num_rows == 0
    assert "no image has a label" in as_text(report)


def test_single_class_gives_defined_metrics(tmp_path: Path) -> None:
    report = evaluated(tmp_path, [good("a", 0.1), good("b", 0.7)])
    found = metrics_of(report)
    assert found["image_auroc", None].value is None
    assert found["false_positive_rate", None].value == 0.5
    assert "part: only normal images; most metrics need anomalous images too" in report.notes
    report = evaluated(tmp_path / "other", [bad("a", 0.1)])
    assert metrics_of(report)["recall", None].value == 0.0
    assert "part: only anomalous images; most metrics need normal images too" in report.notes


def test_failed_and_unlabelled_images_are_excluded(tmp_path: Path) -> None:
    images = [good("a", 0.1), good("broken", None), bad("c", 0.9), good("new", 0.9, label=None)]
    report = evaluated(tmp_path, images)
    assert metrics_of(report)["image_auroc", None].value == 1.0
    assert (report.error_images, report.unlabelled_images) == (1, 1)
    assert "1 labelled image could not be scored, excluded from all metrics" in report.notes
    assert "1 image without a label, excluded from all metrics" in report.notes


def test_category_without_test_images_is_excluded(tmp_path: Path) -> None:
    images = [good("a", 0.1), bad("c", 0.9), good("d", 0.1, split="train", category="third")]
    report = evaluated(tmp_path, images)
    assert metrics_of(report)["image_auroc", None].value == 1.0
    assert report.splits == {"part": "test"}
    assert any(note.startswith("third: excluded, because the run has no test images of it") for note in report.notes)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ((mask_png(24),), "part: 1 anomalous image with a mask of the wrong size"),
        ((mask_png()[:60],), "part: 1 anomalous image with a mask that cannot be read"),
        ((mask_png(), mask_png(24)), "part: 1 anomalous image with a mask of the wrong size"),
        ((encoded(np.zeros((48, 48), np.uint8)),), "part: 1 anomalous image with an empty mask"),
        ((), "part: 1 anomalous image with no mask"),
    ],
)
def test_unusable_mask_excludes_only_its_image(tmp_path: Path, masks: tuple[bytes, ...], said: str) -> None:
    report = evaluated(tmp_path, [good("a", 0.1), bad("c", 0.9), bad("d", 0.9, masks=masks)])
    assert metrics_of(report)["pixel_auroc", None].anomalous_images == 1
    assert metrics_of(report)["image_auroc", None].anomalous_images == 2
    assert f"{said}, excluded from the pixel metrics" in report.notes


def test_masks_with_different_grey_values_are_joined(tmp_path: Path) -> None:
    left, right = np.zeros((48, 48), np.uint8), np.zeros((48, 48), np.uint8)
    left[12:36, 12:24], right[12:36, 24:36] = 1, 254
    parts = evaluated(tmp_path / "parts", [good("a", 0.1), bad("c", 0.9, masks=(encoded(left), encoded(right)))])
    whole = evaluated(tmp_path / "whole", [good("a", 0.1), bad("c", 0.9, masks=(encoded(left | right),))])
    assert metrics_of(parts)["pixel_auroc", None].value == metrics_of(whole)["pixel_auroc", None].value


def test_unknown_grey_values_and_bad_configs_are_named(tmp_path: Path) -> None:
    config = [{"defect_name": "x", "pixel_value": 7, "saturation_threshold": 1.0, "relative_saturation": True}]
    report = evaluated(tmp_path / "unknown", [good("a", 0.1), bad("c", 0.9)], defects={"part": config})
    assert any("missing in defects_config.json (255)" in note for note in report.notes)
    report = evaluated(
        tmp_path / "odd", [good("a", 0.1), bad("c", 0.9)], defects={"part": [*config, {"defect_name": "y"}]}
    )
    assert any(note.startswith("part: defects_config.json, entry 2: pixel_value") for note in report.notes)
    assert not any("connected component" in note for note in report.notes)
    damaged = [{"defect_name": "x", "pixel_value": 7}]
    report = evaluated(tmp_path / "damaged", [good("a", 0.1), bad("c", 0.9)], defects={"part": damaged})
    assert any("entry 1: saturation_threshold" in note for note in report.notes)
    assert any("connected component" in note for note in report.notes)
    assert metrics_of(report)["pixel_auroc", None].value is not None


@pytest.mark.parametrize("maps", ["none", "top"])
def test_pixel_metrics_need_all_maps(tmp_path: Path, maps: str) -> None:
    report = evaluated(tmp_path, [good("a", 0.1), bad("c", 0.9)], maps=maps)
    assert ("pixel_auroc", None) not in metrics_of(report)
    assert f"part: no pixel metrics, because the run has --maps {maps}; score with --maps all" in report.notes


def test_image_metrics_need_no_archive(tmp_path: Path) -> None:
    images = [good("a", 0.1), bad("c", 0.9)]
    archive = write_archive(tmp_path / "archive", images)
    run = write_run(tmp_path / "run", archive, images)
    archive.delete_tree()
    report = evaluate(run.uri, resamples=0)
    assert metrics_of(report)["image_auroc", None].value == 1.0
    assert metrics_of(report)["image_auroc", None].low is None
    assert any("part: no pixel metrics, because the archive cannot be read" in note for note in report.notes)
