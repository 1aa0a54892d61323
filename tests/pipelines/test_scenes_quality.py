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
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("ray_cluster")
def test_the_fused_set_finds_logical_anomalies_that_patches_alone_do_not(tmp_path: Path) -> None:
    source, archive, bundles = (str(tmp_path / name) for name in ("source", "archive", "bundles"))
    write_scenes(source, SceneConfig(seed=0))
    ingest(source, archive)
    fit(archive, bundles, load_config("embedded"))

    def aurocs(name: str, experts: tuple[str, ...] | None) -> tuple[float, float]:
        run = str(tmp_path / name)
        score(archive, bundles, run, options=ScoreOptions(splits=("test",), experts=experts))
        figures = {(entry.name, entry.metric): entry.value for entry in evaluate(run).metrics if entry.expert is None}
        logical, structural = figures["logical", "image_auroc"], figures["structural", "image_auroc"]
        assert logical is not None
        assert structural is not None
        return logical, structural

    logical, structural = aurocs("patch", ("patch",))
    assert logical < 0.75
    assert structural > 0.95
    logical, structural = aurocs("fused", None)
    assert logical > 0.9
    assert structural > 0.95
