"""Rounds of a fit in parallel Ray tasks give the same bundle, also if a task dies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
from support.profiles import small_config
from support.trees import mvtec_tree

from uniad_ray.config.model import FitConfig
from uniad_ray.pipelines.cluster.session import usable_cpus
from uniad_ray.pipelines.fit import job
from uniad_ray.pipelines.fit.opening import FitTask
from uniad_ray.pipelines.fit.rounds import tasks_in_memory
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.scoring.bundles.bundle import Bundle
from uniad_ray.scoring.bundles.store import BundleStore

pytestmark = pytest.mark.usefixtures("ray_cluster")
SELECTION = "fusions.both={rule: excess, selection: {surface: {base: [patch], candidates: [solitary]}, images: 3}}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("rounds")
    mvtec_tree(root / "source/nut", train=24, good=1, bad=1, size=64)
    ingest(str(root / "source"), str(root / "archive"))
    return str(root / "archive")


def solitary(marker: Path, ends: bool) -> FitConfig:
    """A patch memory, and an expert that writes down in which processes it learns, and may end all but the first."""
    return small_config(
        f"experts.solitary={{class: 'support.solitary:Solitary', config: {{marker: '{marker}', ends: {ends}}}}}",
        "expert_sets.both=[patch, solitary]",
        "expert_set=both",
        SELECTION,
    )


@pytest.fixture
def fitted(archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Bundle, set[str]]]:
    """Fit a bundle; the bundle, and the processes that experts learned in."""
    if usable_cpus() < 2 or tasks_in_memory(ray.nodes()[0]["NodeID"]) < 2:
        pytest.skip("parallel rounds need two CPUs and about 9 GiB of memory")

    def run(name: str, *, parallel_from: float, ends: bool = False) -> tuple[Bundle, set[str]]:
        monkeypatch.setattr(job, "FitTask", partial(FitTask, parallel_from=parallel_from))
        marker = tmp_path / name
        report = job.fit(archive, str(tmp_path / f"{name}-bundles"), solitary(marker, ends), accept_unusual=True)
        assert report.failed == {}
        bundle = BundleStore(str(tmp_path / f"{name}-bundles")).load("nut", report.fitted[0].version)
        return bundle, set(marker.read_text().split())

    return run


def test_parallel_rounds_give_the_same_bundle(fitted: Callable[..., tuple[Bundle, set[str]]]) -> None:
    alone, one_process = fitted("alone", parallel_from=np.inf)
    parallel, processes = fitted("parallel", parallel_from=0.0)

    assert len(one_process) == 1
    assert len(processes) > 1
    assert_same(alone, parallel)


@pytest.mark.slow
def test_fit_continues_alone_if_tasks_die(fitted: Callable[..., tuple[Bundle, set[str]]]) -> None:
    alone, _ = fitted("alone", parallel_from=np.inf)
    bereft, processes = fitted("bereft", parallel_from=0.0, ends=True)

    assert len(processes) > 1
    assert_same(alone, bereft)


def assert_same(first: Bundle, second: Bundle) -> None:
    """The stored experts are the same; held-out scores only differ by the rounding of other numbers of threads."""
    states = [
        {name: digest for name, digest in bundle.manifest.files.items() if name.startswith("experts/patch")}
        for bundle in (first, second)
    ]
    assert states[0] == states[1] != {}
    scores, others = first.held_out_scores, second.held_out_scores
    assert scores.row_keys == others.row_keys
    np.testing.assert_allclose(scores.raw["patch"], others.raw["patch"], rtol=1e-4)
    np.testing.assert_allclose(scores.fused, others.fused, rtol=1e-3, atol=1e-3)
