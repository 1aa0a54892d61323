"""A local Ray cluster of two nodes that accepts jobs."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.s3_server import free_ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
HEAD, WORKER = "127.0.0.2", "127.0.0.11"
MARK = "UNIAD_RAY_TEST_CLUSTER"
START_SECONDS = 240


@dataclass(frozen=True)
class JobServer:
    """Address of the job server, and the environment that may submit jobs."""

    address: str
    environment: dict[str, str]

    def ray_job(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `ray job VERB`, with stdout and stderr combined."""
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
    """Returns the processes with the mark in their environment: all descendants of the cluster, orphans included."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it has exited, or belongs to another user
            continue
    return found


def kill_marked(mark: str) -> None:
    """Kills all marked processes; jobs and workers have their own process groups."""
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
    """Removes a folder; retries while dying processes still write to it."""
    deadline = time.monotonic() + 60
    while folder.exists():
        assert time.monotonic() < deadline, f"{folder} cannot be removed"
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def job_cluster() -> Iterator[JobServer]:
    """Runs a head with the job server and one worker node, on separate loopback addresses and ports."""
    mark = secrets.token_hex(8)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        MARK: mark,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    gcs, dashboard, client, *agents = free_ports(5)
    # Ray puts its sockets under this folder, and their paths must be short.
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
                            # Any free port, to avoid conflicts with other clusters on this machine.
                            "--min-worker-port=0",
                            "--max-worker-port=0",
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
