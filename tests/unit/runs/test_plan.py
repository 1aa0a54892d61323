from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.runs import ScoredImage, write_archive
from support.trees import png

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError, RunError
from uniad_ray.runs.plan import (
    FORMAT_VERSION,
    PlannedBundle,
    RunManifest,
    RunPlan,
    ScoreOptions,
    adopt_plan,
    make_plan,
    plan_differences,
    read_plan,
    read_run,
)
from uniad_ray.scoring.bundles.store import BundleStore


def plan(**changes: Any) -> RunPlan:
    fields: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "code_version": "1.0",
        "archive": "/a",
        "archive_digest": "a" * 64,
        "bundle_root": "/b",
        "bundles": {"nut": PlannedBundle(version="v1", digest="d" * 64)},
        "options": ScoreOptions(),
        "chunks": 2,
        "images": 5,
    }
    return RunPlan(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"archive_digest": "b" * 64}, "archive digest was aaaaaaaaaaaa, is bbbbbbbbbbbb"),
        ({"bundles": {"nut": PlannedBundle(version="v2", digest="e" * 64)}}, "bundle of nut was v1, is v2"),
        ({"bundles": {}}, "bundle of nut was v1, is none"),
        ({"options": ScoreOptions(maps="none")}, "option maps was all, is none"),
        ({"options": ScoreOptions(splits=("test",))}, "option splits was None, is ('test',)"),
        (
            {"options": ScoreOptions(shards=("images/nut/0.parquet",))},
            "option shards was None, is ('images/nut/0.parquet',)",
        ),
        ({"options": ScoreOptions(false_positive_rate=0.1)}, "option false_positive_rate was None, is 0.1"),
        ({"code_version": "2.0"}, "uniad_ray was 1.0, is 2.0"),
    ],
)
def test_plan_differences_are_reported(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert plan_differences(plan(), plan(**changes)) == [said]
    assert plan().run_id != plan(**changes).run_id
    run = Location.parse(tmp_path)
    assert adopt_plan(run, plan()) is False
    assert adopt_plan(run, plan()) is True
    with pytest.raises(RunError, match=r"started with another plan: .*; use a new --out, or restore"):
        adopt_plan(run, plan(**changes))
    assert read_plan(run) == plan()


def test_locations_do_not_change_the_run_id() -> None:
    moved = plan(archive="s3://x/a", bundle_root="s3://x/b")
    assert plan_differences(plan(), moved) == []
    assert plan().run_id == moved.run_id


def test_manifest_checks_row_count() -> None:
    fields: dict[str, Any] = {
        "run_id": "r",
        "plan": plan(),
        "errors": 0,
        "anomalous": 0,
        "categories": {},
        "chunks_sha256": "c",
        "weights": {},
        "random_weights": False,
    }
    assert RunManifest(images=5, **fields).images == 5
    with pytest.raises(ValidationError, match="4 score rows for 5 image rows"):
        RunManifest(images=4, **fields)


def test_unfinished_or_corrupt_run_is_refused(tmp_path: Path) -> None:
    run = Location.parse(tmp_path)
    with pytest.raises(RunError, match="no run there"):
        read_run(run)
    adopt_plan(run, plan())
    with pytest.raises(RunError, match="the run is not finished; repeat the `uniad-ray score` command"):
        read_run(run)
    (run / "manifest.json").write_json({"run_id": "r"})
    with pytest.raises(RunError, match="corrupt manifest of a run"):
        read_run(run)


@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_older_run_is_refused(tmp_path: Path, name: str) -> None:
    run = Location.parse(tmp_path)
    old = {"format_version": 1, "perceivers": {}}
    (run / name).write_json(old if name == "plan.json" else {"plan": old})
    message = f"{tmp_path}/{name}: run format 1; this version of uniad_ray reads 2; score again with another --out"
    with pytest.raises(RunError) as caught:
        read_run(run)
    assert str(caught.value) == message


def test_older_run_is_not_resumed(tmp_path: Path) -> None:
    run = Location.parse(tmp_path)
    adopt_plan(run, plan(format_version=1))
    with pytest.raises(RunError, match="run format 1; this version of uniad_ray reads 2; score again"):
        adopt_plan(run, plan())


def test_chosen_shards_are_planned_and_unknown_ones_refused(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", [ScoredImage("1", png(1), 0.1, category=name) for name in "ab"])
    store = BundleStore(str(tmp_path / "bundles"))
    manifest = read_manifest(archive)
    with pytest.raises(ArchiveError, match=r"no shard images/c/0.parquet; its manifest.json lists the shards"):
        make_plan(archive, manifest, store, ScoreOptions(shards=("images/a/0.parquet", "images/c/0.parquet")))
    (store.root / "a/current.json").write_json({"category": "a", "version": "v1", "digest": "d" * 64})
    _, work = make_plan(archive, manifest, store, ScoreOptions(shards=("images/a/0.parquet",)))
    assert [chunk.shard for chunk in work] == ["images/a/0.parquet"]


def test_run_of_all_shards_keeps_its_id() -> None:
    """Runs from before shards could be chosen resume with the same id."""
    document = plan().model_dump(mode="json", exclude={"archive", "bundle_root"})
    del document["options"]["shards"]
    text = json.dumps(document, sort_keys=True)
    assert plan().run_id == hashlib.sha256(text.encode()).hexdigest()[:16]
