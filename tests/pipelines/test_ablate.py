"""An ablation table from an archive, and a fit with a student, on a tiny category."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.pipelines.ablate import ablate
from uniad_ray.pipelines.ingest import ingest
from uniad_ray.pipelines.run_reader import RunReader
from uniad_ray.pipelines.scenes import write_scenes
from uniad_ray.scoring.bundle_store import BundleStore

SMALL = [
    "input_size=128",
    "map_size=32",
    "perceivers.student.config.training.iterations=4",
    "perceivers.student.config.training.batch_size=4",
    "perceivers.student.config.training.checkpoint_every=2",
    "experts.structural_teacher.config.epochs=1",
    "experts.structural_student.config.epochs=1",
    "calibration.min_images=10",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:  # noqa: ARG001
    root = tmp_path_factory.mktemp("ablate")
    write_scenes(str(root / "source"), SceneConfig(train=24, test_good=4, logical=4, structural=4, image_size=128))
    ingest(str(root / "source"), str(root / "archive"))
    return str(root / "archive")


def test_a_table_fuses_the_evidence_of_one_fit_and_is_stored(archive: str, tmp_path: Path) -> None:
    report = ablate(archive, str(tmp_path / "work"), 8, overrides=SMALL)
    assert report.categories == ("trays",)
    assert not report.random_weights
    assert len(list((tmp_path / "work/variants").iterdir())) == 1
    table = pq.read_table(report.path).to_pylist()
    assert [entry["experts"] for entry in table] == [list(row.experts) for row in report.rows]
    for row, entry in zip(report.rows, table, strict=True):
        assert (row.logical, row.structural, row.mean) == (entry["logical"], entry["structural"], entry["mean"])
        assert row.mean == pytest.approx((row.logical + row.structural) / 2)  # type: ignore[operator]

    # The row of all experts is what the run itself says, since it fused them in the same way.
    (variant,) = (tmp_path / "work/variants").iterdir()
    from uniad_ray.pipelines.evaluate import evaluate

    metrics = evaluate(str(variant / "run"), resamples=0).metrics
    own = {
        entry.name: entry.value
        for entry in metrics
        if (entry.metric, entry.group, entry.expert) == ("image_auroc", "anomaly_type", None)
    }
    assert report.rows[-1].logical == pytest.approx(own["logical"])
    assert report.rows[-1].structural == pytest.approx(own["structural"])

    # Another table of the same evidence fits and scores nothing again.
    manifest = (variant / "run/manifest.json").stat().st_mtime_ns
    again = ablate(archive, str(tmp_path / "work"), 9, overrides=SMALL)
    assert (variant / "run/manifest.json").stat().st_mtime_ns == manifest
    assert len(list((tmp_path / "work/variants").iterdir())) == 1
    assert again.rows[0].experts == ("structural_teacher",)

    # The bundle says what the student learned from, and its training is kept where it can go on.
    manifest_of = BundleStore(str(variant / "bundles")).versions("trays")[0]
    assert {"pyramid", "logical", "student", "teacher_components", "student_components"} <= set(
        manifest_of.lineage["perceivers"]
    )
    assert RunReader(str(variant / "run")).manifest.weights["trays"]["student"]["training"]["iterations"] == 4
    assert json.dumps(manifest_of.lineage["perceivers"]["student"])
    assert any((variant / "bundles/.checkpoints").rglob("*.parquet"))
