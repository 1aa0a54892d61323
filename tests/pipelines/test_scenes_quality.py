"""The trays are good only if a patch memory finds their structural anomalies and is blind to the logical ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.config.loading import load_config
from uniad_ray.pipelines.evaluate import evaluate
from uniad_ray.pipelines.fit import fit
from uniad_ray.pipelines.ingest import ingest
from uniad_ray.pipelines.run_plan import ScoreOptions
from uniad_ray.pipelines.scenes import write_scenes
from uniad_ray.pipelines.score import score


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("seed", [0, 1])
def test_patches_tell_structural_anomalies_and_not_logical_ones(seed: int, tmp_path: Path) -> None:
    source, archive, bundles, run = (str(tmp_path / name) for name in ("source", "archive", "bundles", "run"))
    write_scenes(source, SceneConfig(seed=seed))
    ingest(source, archive)
    fit(archive, bundles, load_config("embedded"))
    score(archive, bundles, run, options=ScoreOptions(splits=("test",)))
    figures = {(entry.name, entry.metric): entry.value for entry in evaluate(run).metrics if entry.expert is None}
    structural, logical = figures["structural", "image_auroc"], figures["logical", "image_auroc"]
    assert structural is not None
    assert logical is not None
    assert structural > 0.95
    assert logical < 0.75
