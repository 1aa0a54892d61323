"""A night whose process is killed with kill -9 after each step, and while Ray scores."""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from support.night_process import start_night
from support.nights import SECRET, Factory, receiver, write_factory
from support.trees import write

STEPS = ("begin", "ingest", "score", "drift", "evaluation", "summary", "outbox", "sent/webhook-a")


def start(config: Path, *, hold: Path | None = None, with_ray: bool = False) -> BaseProcess:
    """Starts the night `n1`; its output is beside its configuration."""
    options = ["--config", str(config), "--night", "n1"]
    return start_night(
        options, log=str(config.with_suffix(".log")), hold=None if hold is None else str(hold), with_ray=with_ray
    )


def run_to_the_end(config: Path) -> int | None:
    """Runs a night, and returns its exit code."""
    process = start(config)
    process.join(300)
    return process.exitcode


def kill_after(config: Path, written: Path, *, with_ray: bool = False) -> None:
    """Kills a night and all its descendants after it has written a file, and before it does anything else."""
    process = start(config, hold=written, with_ray=with_ray)
    deadline = time.monotonic() + 300
    while not written.exists():
        assert process.is_alive(), config.with_suffix(".log").read_text("utf-8")
        assert time.monotonic() < deadline, "the night wrote nothing in time"
        time.sleep(0.02)
    os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_night_killed_at_each_step_ends_with_the_same_rows_history_and_one_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before the first process, whose server keeps the environment.
    monkeypatch.setenv("HOOK_KEY", SECRET)
    write_factory(tmp_path / "prepared")
    with receiver() as whole, receiver() as killed:
        secret = {"env": "HOOK_KEY"}
        hooks = [{"notify": {"webhooks": {"a": {"url": found.url, "secret": secret}}}} for found in (whole, killed)]
        undisturbed = Factory.copy(tmp_path / "prepared", tmp_path / "a", **hooks[0])
        undisturbed.arrive(25, spots=10)
        sources = undisturbed.document()["sources"]
        disturbed = Factory.copy(tmp_path / "prepared", tmp_path / "b", sources=sources, **hooks[1])
        configs = [configuration(factory) for factory in (undisturbed, disturbed)]
        assert run_to_the_end(configs[0]) == 3
        folder = disturbed.work / "nights/n1"
        for step in STEPS:
            if step == "score":
                # Killed within the step too; Ray scores the rows that tasks in one process have scored above.
                kill_after(configs[1], disturbed.work / "runs/n1/plan.json")
                kill_after(configs[1], folder / "score.json", with_ray=True)
            else:
                kill_after(configs[1], folder / f"{step}.json")
            assert not (folder / "end.json").exists()
        assert run_to_the_end(configs[1]) == 3
        assert (folder / "end.json").exists()
        assert disturbed.rows("n1") == undisturbed.rows("n1")
        summaries = [factory.record("n1", "summary") for factory in (undisturbed, disturbed)]
        for summary in summaries:
            del summary["started_at"]
        assert summaries[0] == summaries[1]
        assert "reject_rate" in [alarm["kind"] for alarm in summaries[1]["alarms"]]
        samples = [(factory.work / "nights/n1/sample.parquet").read_bytes() for factory in (undisturbed, disturbed)]
        assert samples[0] == samples[1]
        assert '<th scope="row">n1</th>' in (disturbed.work / "nights.html").read_text("utf-8")
        assert len(killed.ids) == len(whole.ids) == 1


def configuration(factory: Factory) -> Path:
    """The file of a factory; JSON is YAML."""
    path = factory.root / "nightly.yaml"
    write(path, json.dumps(factory.document()).encode())
    return path
