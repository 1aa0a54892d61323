"""Ablation tables from an archive, with and without a student, on a tiny category."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from uniad_ray.ablations.ablate import ablate
from uniad_ray.ablations.table_metrics import TypeMetrics
from uniad_ray.ablations.tmuad import TmuadTableOptions
from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.scenes.writing import write_scenes
from uniad_ray.cli.verbs.models.ablate import as_text
from uniad_ray.errors import ConfigError
from uniad_ray.evaluation.run import evaluate
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.runs.reader import RunReader
from uniad_ray.scoring.bundles.store import BundleStore

SMALL = [
    "image_size=[128, 128]",
    "map_size=32",
    "extractors.vit.config.input_size=112",
    "fusions.fused-teacher.selection.images=4",
    "extractors.student.config.training.iterations=4",
    "extractors.student.config.training.batch_size=4",
    "extractors.student.config.training.checkpoint_every=2",
    "experts.structural_teacher.config.epochs=1",
    "experts.structural_student.config.epochs=1",
    "calibration.holdout_from=10",
]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:  # noqa: ARG001
    root = tmp_path_factory.mktemp("ablate")
    write_scenes(str(root / "source"), SceneConfig(train=24, test_good=4, logical=4, structural=4, image_size=128))
    ingest(str(root / "source"), str(root / "archive"))
    return str(root / "archive")


def test_table_fuses_one_fit_and_is_stored(archive: str, tmp_path: Path) -> None:
    report = ablate(archive, str(tmp_path / "work"), 8, overrides=SMALL)
    assert report.categories == ("trays",)
    assert not report.random_weights
    assert len(list((tmp_path / "work/variants").iterdir())) == 1
    table = pq.read_table(report.path).to_pylist()
    assert [entry["experts"] for entry in table] == [list(row.experts) for row in report.rows]
    for row, entry in zip(report.rows, table, strict=True):
        assert row.image == TypeMetrics(**{name: entry[name] for name in TypeMetrics.model_fields})
        assert row.image.mean == pytest.approx((row.image.logical + row.image.structural) / 2)  # type: ignore[operator]
        assert (row.deviation, entry["deviation_mean"], row.pixel, row.milliseconds) == (None, None, None, None)

    # The row of all experts matches the run, which uses the same fusion.
    (variant,) = (tmp_path / "work/variants").iterdir()
    own = of_run(variant / "run", "image_auroc")
    assert (report.rows[-1].image.logical, report.rows[-1].image.structural) == pytest.approx(own)

    # Another table on the same evidence neither fits nor scores again.
    manifest = (variant / "run/manifest.json").stat().st_mtime_ns
    again = ablate(archive, str(tmp_path / "work"), 9, overrides=SMALL)
    assert (variant / "run/manifest.json").stat().st_mtime_ns == manifest
    assert len(list((tmp_path / "work/variants").iterdir())) == 1
    assert again.rows[0].experts == ("structural_teacher",)

    # The bundle records the student's training data, and the training's checkpoints are kept.
    manifest_of = BundleStore(str(variant / "bundles")).versions("trays").manifests[0]
    assert {"pyramid", "logical", "student", "teacher_components", "student_components"} <= set(
        manifest_of.lineage["extractors"]
    )
    assert RunReader(str(variant / "run")).manifest.weights["trays"]["student"]["training"]["iterations"] == 4
    assert json.dumps(manifest_of.lineage["extractors"]["student"])
    assert any((tmp_path / "work/checkpoints").rglob("*.parquet"))


def test_memory_banks_have_image_and_pixel_metrics(archive: str, tmp_path: Path) -> None:
    report = ablate(archive, str(tmp_path / "work"), 5, paper="tmuad", overrides=SMALL)
    folders = {path.name.rpartition("-")[0]: path for path in (tmp_path / "work/variants").iterdir()}
    assert set(folders) == {"whole", "paper"}
    runs = [
        folders["whole"] / "run-text_memory",
        folders["whole"] / "run-object",
        folders["whole"] / "run-patch",
        folders["whole"] / "run-object-patch",
        folders["whole"] / "run",
        folders["paper"] / "run",
    ]
    for row, run in zip(report.rows, runs, strict=True):
        assert row.pixel is not None
        for values, metric in ((row.image, "image_auroc"), (row.pixel, "pixel_auroc")):
            assert (values.logical, values.structural) == pytest.approx(of_run(run, metric)), run
    # Training images are not scored.
    assert set(RunReader(str(runs[0])).scores(["split"]).column("split").to_pylist()) == {"test"}
    assert "pixel structural" in as_text(report)


def test_few_shot_and_cost_tables(archive: str, tmp_path: Path) -> None:
    work, options = str(tmp_path / "work"), TmuadTableOptions(shots=(1,), draws=2)
    report = ablate(archive, work, 10, paper="tmuad", overrides=SMALL, options=options)
    assert all(row.deviation is not None and row.deviation.mean is not None for row in report.rows)
    assert len(list((tmp_path / "work/variants").iterdir())) == 4
    # The first draw of one image is not fitted again.
    options = TmuadTableOptions(shots=(1, 2), draws=1)
    report = ablate(archive, work, 10, paper="tmuad", overrides=SMALL, options=options)
    assert {row.settings["shots"] for row in report.rows} == {"1", "2"}
    assert len(list((tmp_path / "work/variants").iterdir())) == 6
    for folder in (tmp_path / "work/variants").iterdir():
        (manifest,) = BundleStore(str(folder / "bundles")).versions("trays").manifests
        shots = int(folder.name.partition("-")[0])
        assert manifest.calibration.fit_images == manifest.lineage["normal_images"] == shots
        assert manifest.calibration.method == ("altered_copies" if shots == 1 else "cross_fit")
    with pytest.raises(ConfigError, match="has 24 normal images, but 99 are drawn; lower --shots"):
        ablate(archive, work, 10, paper="tmuad", options=TmuadTableOptions(shots=(99,)))

    costs = ablate(archive, work, 11, paper="tmuad", overrides=SMALL)
    for row in costs.rows:
        assert row.milliseconds is not None
        assert all(value > 0 for value in row.milliseconds.values())
        assert ("extractor segmenter" in row.milliseconds) == (row.settings["experts"] == "TMUAD")
        assert f"expert {row.experts[-1]}" in row.milliseconds
        assert row.parameters
        assert row.flops
    stored = pq.read_table(costs.path).to_pylist()
    assert [{entry["stage"]: entry["value"] for entry in row["milliseconds"]} for row in stored] == [
        row.milliseconds for row in costs.rows
    ]
    assert [(row["parameters"], row["flops"]) for row in stored] == [(row.parameters, row.flops) for row in costs.rows]
    assert "images per second" in as_text(costs)
    assert "GFLOPs per image" in as_text(costs)


def of_run(run: Path, metric: str) -> tuple[float | None, float | None]:
    """A metric of a run on logical and on structural anomalies, from its evaluation."""
    found = {
        entry.name: entry.value
        for entry in evaluate(str(run), resamples=0).metrics
        if (entry.metric, entry.group, entry.expert) == (metric, "anomaly_type", None)
    }
    return found["logical"], found["structural"]
