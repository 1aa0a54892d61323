"""Ingests and runs that end at every single change of their store, before, during and after it; without Ray."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from support.ingests import Ingest, without_ray
from support.kills import When, contents, killed_at
from support.nights import CATEGORY, write_factory
from support.nights import without_ray as scoring_without_ray
from support.trees import mvtec_tree, png, write

from uniad_ray.archive.shards import ShardLimits
from uniad_ray.pipelines.ingest import job as ingest_job
from uniad_ray.pipelines.score import score
from uniad_ray.pipelines.score.worker import ChunkScorer
from uniad_ray.runs.plan import ScoreOptions
from uniad_ray.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles, and an archive of eight images in four chunks, one of them cut off."""
    root = tmp_path_factory.mktemp("steps")
    write_factory(root, images=12)
    for index in range(7):
        write(root / f"source/{index}.png", png(100 + index, spot=index % 2 == 0))
    write(root / "source/7.png", png(107)[:-40])
    with pytest.MonkeyPatch.context() as patch:
        scoring_without_ray(patch)
        limits = ShardLimits(rows=4, row_group_rows=2)
        ingest_job.ingest(str(root / "source"), str(root / "archive"), category=CATEGORY, limits=limits)
    return root


@pytest.fixture
def scoring(factory: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], object]:
    """Scores the archive into a folder, in this process; the networks are loaded once for all runs."""
    scoring_without_ray(monkeypatch)
    load = ChunkScorer._scorer
    loaded: dict[str, tuple[Scorer, Any]] = {}

    def once(worker: ChunkScorer, category: str) -> Scorer:
        if category not in loaded:
            loaded[category] = load(worker, category), worker._digests
        worker._digests = loaded[category][1]
        return loaded[category][0]

    monkeypatch.setattr(ChunkScorer, "_scorer", once)

    def run(out: Path, maps: str) -> object:
        options = ScoreOptions.model_validate({"maps": maps, "top_maps": 2})
        return score(str(factory / "archive"), str(factory / "bundles"), str(out), options=options)

    return run


def end_at_every_step(work: Callable[[Path], object], prepare: Callable[[Path], object], root: Path) -> int:
    """Ends work at each change of its store and repeats it; the result has to be that of undisturbed work.

    Returns:
        The number of kills.
    """
    prepare(root / "whole")
    with killed_at(None) as steps:
        work(root / "whole")
    wanted, kills = contents(root / "whole"), 0
    for when in get_args(When):
        for at, change in enumerate(steps.done):
            if when == "during" and not change.startswith("write "):
                continue
            out = root / f"{when}-{at}"
            prepare(out)
            with killed_at(at, when):
                work(out)
            work(out)
            assert contents(out) == wanted, f"killed {when} {change}"
            shutil.rmtree(out)
            kills += 1
    return kills


@pytest.mark.parametrize("maps", ["all", pytest.param("top", marks=pytest.mark.slow)])
def test_run_killed_at_every_step_ends_with_the_same_bytes(
    tmp_path: Path, scoring: Callable[[Path, str], object], maps: str
) -> None:
    kills = end_at_every_step(functools.partial(scoring, maps=maps), lambda _: None, tmp_path)
    # A lease, a plan, four chunks with maps, their list and the manifest are the least.
    assert kills > 3 * (2 + 8 + 2)


def test_ingest_killed_at_every_step_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = mvtec_tree(tmp_path / "bottle")
    run: Ingest = without_ray(monkeypatch)
    kills = end_at_every_step(lambda archive: run(source, archive), lambda _: None, tmp_path)
    assert kills > 3 * (2 + 6 + 3)


def test_second_ingest_killed_at_every_step_keeps_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = mvtec_tree(tmp_path / "bottle", good=2, bad=0)
    run: Ingest = without_ray(monkeypatch)
    run(source, tmp_path / "first")
    write(source / "train/good/new.png", png(900))
    write(source / "test/good/000.png", png(901))
    end_at_every_step(
        lambda archive: run(source, archive), lambda archive: shutil.copytree(tmp_path / "first", archive), tmp_path
    )
