"""Jobs that are killed with kill -9 and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import wait_for, workers_of
from support.trees import mvtec_tree
from support.verbs import verb

from uniad_ray.archive.stores.location import Location

SMALL = [
    "--set=longest_side=64",
    "--set=map_size=16",
    "--set=batch_size=4",
    "--set=expert_set=patch",
    "--set=experts.patch.config.memory_size=100",
]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "uniad_ray.cli", *arguments]


def kill_when(arguments: list[str], folder: Path, suffix: str, count: int) -> None:
    """Starts a job, and kills its driver and all descendants once `count` files exist."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(lambda: len(list(folder.rglob(f"*{suffix}"))) >= count, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def all_bytes(root: Path) -> dict[str, bytes]:
    """All files under a root except the timings, the only files that depend on the clock."""
    every = {info.relative: info.location.read_bytes() for info in Location.parse(root).list()}
    return {name: data for name, data in every.items() if not name.startswith("timings/")}


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:  # noqa: ARG001
    """An archive and its bundle. Jobs to be killed start their own Ray; others use the tests' Ray."""
    root = tmp_path_factory.mktemp("kill")
    mvtec_tree(root / "bottle", train=40, good=20, bad=20)
    verb("ingest", str(root / "bottle"), str(root / "archive"), "--shard-images=8", "--chunk-images=4")
    verb("fit", str(root / "archive"), "--bundles", str(root / "bundles"), *SMALL)
    return root


@pytest.mark.slow
def test_score_killed_twice_resumes_to_the_same_rows(factory: Path) -> None:
    arguments = ["score", str(factory / "archive"), "--bundles", str(factory / "bundles"), "--out"]
    verb(*arguments, str(factory / "whole"))
    kill_when([*arguments, str(factory / "killed")], factory / "killed/scores", ".parquet", 3)
    first = len(list((factory / "killed/scores").rglob("*.parquet")))
    assert not (factory / "killed/manifest.json").exists()
    kill_when([*arguments, str(factory / "killed")], factory / "killed/scores", ".parquet", first + 3)
    verb(*arguments, str(factory / "killed"))
    assert all_bytes(factory / "killed") == all_bytes(factory / "whole")


@pytest.mark.slow
def test_killed_ingest_resumes_to_the_same_bytes(factory: Path) -> None:
    arguments = ["ingest", str(factory / "bottle")]
    options = ["--shard-images=2", "--chunk-images=2"]
    verb(*arguments, str(factory / "archive-whole"), *options)
    kill_when([*arguments, str(factory / "archive-killed"), *options], factory / "archive-killed", ".parquet", 8)
    assert not (factory / "archive-killed/manifest.json").exists()
    verb(*arguments, str(factory / "archive-killed"), *options)
    assert all_bytes(factory / "archive-killed") == all_bytes(factory / "archive-whole")


@pytest.mark.slow
def test_killed_score_worker_loses_no_row(factory: Path) -> None:
    arguments = ["score", str(factory / "archive"), "--bundles", str(factory / "bundles"), "--workers=1", "--out"]
    verb(*arguments, str(factory / "undisturbed"))
    out = factory / "worker-killed"
    process = subprocess.Popen(
        command(*arguments, str(out), "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: len(list((out / "scores").rglob("*.parquet"))) >= 3, process)
        victims = workers_of(process.pid, b"ChunkScorer")
        assert victims, "no scoring worker was found"
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert all_bytes(out) == all_bytes(factory / "undisturbed")
    # Ray reports dead workers on stdout unless redirected.
    assert json.loads(output)["run"] == Location.parse(out).uri


@pytest.mark.slow
def test_ctrl_c_exits_cleanly_with_advice(factory: Path) -> None:
    out = factory / "interrupted"
    arguments = ["score", str(factory / "archive"), "--bundles", str(factory / "bundles"), "--out", str(out)]
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests in the background of a shell ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 300
    while not list((out / "scores").rglob("*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert output == ""
    assert "interrupted; run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert not (out / "manifest.json").exists()
    verb(*arguments)
    assert (out / "manifest.json").exists()
