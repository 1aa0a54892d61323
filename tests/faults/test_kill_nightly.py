"""A night whose process is killed with kill -9 at several steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.nights import Factory, receiver, write_factory
from support.processes import wait_for
from support.trees import write


def start(config: Path, key: str) -> subprocess.Popen[bytes]:
    """Starts a night in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "support.night_process", "--config", str(config), "--night", "n1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "HOOK_KEY": key, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def kill_at(config: Path, key: str, record: Path) -> None:
    """Kills a night and all its descendants once a record is there."""
    process = start(config, key)
    try:
        wait_for(record.exists, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_night_ends_with_the_same_rows_and_one_alarm(tmp_path: Path) -> None:
    key = "a key of at least sixteen bytes"
    write_factory(tmp_path / "prepared")
    with receiver() as whole, receiver() as killed:
        secret = {"env": "HOOK_KEY"}
        hooks = [{"notify": {"webhooks": {"a": {"url": found.url, "secret": secret}}}} for found in (whole, killed)]
        undisturbed = Factory.copy(tmp_path / "prepared", tmp_path / "a", **hooks[0])
        undisturbed.arrive(25, spots=10)
        sources = undisturbed.document()["sources"]
        disturbed = Factory.copy(tmp_path / "prepared", tmp_path / "b", sources=sources, **hooks[1])
        configs = [configuration(factory) for factory in (undisturbed, disturbed)]
        assert start(configs[0], key).wait(300) == 3
        folder = disturbed.work / "nights/n1"
        for record in (folder / "begin.json", disturbed.work / "runs/n1/plan.json", folder / "drift.json"):
            kill_at(configs[1], key, record)
            assert not (folder / "end.json").exists()
        assert start(configs[1], key).wait(300) == 3
        assert disturbed.rows("n1") == undisturbed.rows("n1")
        summaries: list[dict[str, Any]] = [factory.record("n1", "summary") for factory in (undisturbed, disturbed)]
        for summary in summaries:
            del summary["started_at"]
        assert summaries[0] == summaries[1]
        assert len(set(killed.ids)) == len(killed.ids) == len(whole.ids) == 1


def configuration(factory: Factory) -> Path:
    """The file of a factory; JSON is YAML."""
    path = factory.root / "nightly.yaml"
    write(path, json.dumps(factory.document()).encode())
    return path
