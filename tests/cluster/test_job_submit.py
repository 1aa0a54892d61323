"""The job scripts through `ray job submit`, as the README gives it, on a real cluster of two nodes on this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset
import pytest
from support.s3_server import free_ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
HEAD, WORKER = "127.0.0.2", "127.0.0.11"
MARK = "UNIAD_RAY_TEST_CLUSTER"
START_SECONDS = 240
SMALL = ["--set=input_size=64", "--set=map_size=16", "--set=experts.patch.config.memory_size=100"]


@dataclass(frozen=True)
class JobServer:
    """Where jobs are submitted, and the environment of who may submit them."""

    address: str
    environment: dict[str, str]

    def ray_job(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `ray job VERB`; stdout and stderr come as one."""
        return subprocess.run(
            [str(BIN / "ray"), "job", verb, f"--address={self.address}", *arguments],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            cwd=ROOT,
            env=self.environment,
        )


def marked_processes(mark: str) -> list[int]:
    """Processes that have the mark in their environment: all that descend from the cluster, whoever is their parent."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it ended, or is another user's
            continue
    return found


def kill_marked(mark: str) -> None:
    """Kills until nothing is left; jobs and workers are in process groups of their own."""
    deadline = time.monotonic() + 60
    while pids := marked_processes(mark):
        assert time.monotonic() < deadline, f"processes that cannot be killed: {pids}"
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def remove(folder: Path) -> None:
    """Removes a folder, in which a process that is just dying may still finish a write."""
    deadline = time.monotonic() + 60
    while folder.exists():
        assert time.monotonic() < deadline, f"{folder} cannot be removed"
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server() -> Iterator[JobServer]:
    """A head with the job server and one worker node, on loopback addresses and ports of their own."""
    mark = secrets.token_hex(8)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        MARK: mark,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    gcs, dashboard, client, *agents = free_ports(5)
    # Ray's sockets lie below it, and their paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray-jobs-"))
    nodes = {
        "head": [
            "--head",
            f"--node-ip-address={HEAD}",
            f"--port={gcs}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}",
            f"--temp-dir={folder}",
        ],
        "worker": [f"--address={HEAD}:{gcs}", f"--node-ip-address={WORKER}"],
    }
    processes = []
    try:
        for (name, options), agent in zip(nodes.items(), agents, strict=True):
            log = folder / f"{name}.log"
            with log.open("wb") as file:
                processes.append(
                    subprocess.Popen(
                        [
                            str(BIN / "ray"),
                            "start",
                            "--block",
                            "--num-cpus=2",
                            f"--dashboard-agent-listen-port={agent}",
                            *options,
                        ],
                        stdout=file,
                        stderr=file,
                        env=environment,
                        start_new_session=True,
                    )
                )
            wait_for_runtime(log, processes[-1])
        yield JobServer(f"http://127.0.0.1:{dashboard}", environment)
    finally:
        kill_marked(mark)
        for process in processes:
            process.wait()
        remove(folder)


def wait_for_runtime(log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


@pytest.mark.slow
def test_all_jobs_make_a_run_with_rows_figures_and_a_report(server: JobServer, tmp_path: Path) -> None:
    source, archive, bundles, run = (str(tmp_path / name) for name in ("source", "archive", "bundles", "run"))
    counts = ["--train=10", "--test-good=3", "--logical=3", "--structural=3", "--image-size=64"]
    subprocess.run([sys.executable, "-m", "uniad_ray.cli", "scenes", source, *counts], check=True, timeout=120)
    jobs = {
        "ingest": [source, archive],
        "fit": [archive, "--bundles", bundles, *SMALL],
        "score": [archive, "--bundles", bundles, "--out", run, "--workers=2"],
        "evaluate": [run],
        "report": [run],
        "compare": [run, f"{run}-again"],
    }
    # A variable of the job's own, as one names a store, which the verbs pass on themselves where they find it set.
    options = ["--working-dir=.", "--runtime-env-json", json.dumps({"env_vars": {"AWS_REGION": "us-east-1"}})]
    for verb, arguments in jobs.items():
        if verb == "compare":
            shutil.copytree(run, f"{run}-again")
        ended = server.ray_job("submit", *options, "--", "python", f"jobs/{verb}.py", *arguments)
        assert ended.returncode == 0, ended.stdout[-3000:]
        assert "succeeded" in ended.stdout
        assert "Traceback" not in ended.stdout
    rows = pyarrow.dataset.dataset(f"{run}/scores").to_table()
    assert rows.num_rows == 19
    assert set(rows.column("status").to_pylist()) == {"ok"}
    figures = pyarrow.dataset.dataset(f"{run}/evaluation/metrics.parquet").to_table()
    assert {"logical", "structural"} <= set(figures.column("name").to_pylist())
    assert "Anomaly report" in Path(run, "report/report.html").read_text("utf-8")


@pytest.mark.slow
def test_a_job_that_fails_says_why_in_one_line(server: JobServer, tmp_path: Path) -> None:
    """From a working directory that holds the scripts alone, so that the installed package runs."""
    missing = str(tmp_path / "none")
    arguments = [missing, "--bundles", str(tmp_path), "--out", str(tmp_path / "run")]
    ended = server.ray_job(
        "submit", "--submission-id=fails", "--working-dir=jobs", "--", "python", "score.py", *arguments
    )
    assert ended.returncode == 1
    assert "FAILED" in server.ray_job("status", "fails").stdout.upper()
    log = server.ray_job("logs", "fails").stdout
    assert [line for line in log.splitlines() if line.startswith("error: ") and missing in line]
    assert "Traceback" not in log
