"""Starting Ray on a busy machine."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import ray

from uniad_ray.errors import RunError
from uniad_ray.pipelines.cluster import ray_start
from uniad_ray.pipelines.cluster.ray_start import PAUSES, start_local_ray
from uniad_ray.pipelines.cluster.session import ray_session

TIMED_OUT = "The current node timed out during startup. Some of the raylet failed to startup.\nMore of it."
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(600)"
SLEEP = "import time; time.sleep(600)"


class StubRay:
    """Stub of `ray.init` and `ray.shutdown` that fails a number of times and may leave processes, as Ray does."""

    def __init__(self, failures: int, leave: list[str] | None = None) -> None:
        self.failures = failures
        self.leave = leave
        self.calls: list[str] = []
        self.left: list[subprocess.Popen[bytes]] = []

    def init(self, **options: object) -> None:
        assert options["address"] == "local"
        assert options["num_cpus"] == 4
        self.calls.append("init")
        if self.calls.count("init") <= self.failures:
            if self.leave is not None:
                self.left.append(subprocess.Popen([sys.executable, "-c", PARENT, SLEEP, *self.leave]))
            raise Exception(TIMED_OUT)  # noqa: TRY002 - as Ray raises it

    def shutdown(self) -> None:
        self.calls.append("shutdown")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(ray_start.time, "sleep", slept.append)
    return slept


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (8.44, 5.0, 2.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def install(monkeypatch: pytest.MonkeyPatch, stub: StubRay) -> StubRay:
    monkeypatch.setattr(ray, "init", stub.init)
    monkeypatch.setattr(ray, "shutdown", stub.shutdown)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return stub


@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("failures", [0, 1, 2])
def test_failed_start_is_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, pauses: list[float], failures: int
) -> None:
    stub = install(monkeypatch, StubRay(failures))
    with caplog.at_level(logging.WARNING, logger="uniad_ray"):
        start_local_ray(4)
    assert stub.calls == ["init", "shutdown"] * failures + ["init"]
    assert pauses == list(PAUSES[:failures])
    logged = ["Ray failed to start 2 times (load 8.4 on 2 CPUs); trying once more"]
    assert [record.getMessage() for record in caplog.records] == (logged if failures == 2 else [])


def test_pauses_grow_and_are_short() -> None:
    assert len(PAUSES) == 2
    assert 0 < PAUSES[0] < PAUSES[1] <= 10


@pytest.mark.usefixtures("load")
def test_last_failure_says_what_to_do(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    stub = install(monkeypatch, StubRay(3))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    with pytest.raises(RunError) as caught, ray_session():
        pass
    assert str(caught.value) == (
        "Ray failed to start 3 times: The current node timed out during startup. Some of the raylet failed to startup "
        "(load 8.4 on 2 CPUs); try again when the machine is less busy, or join a running Ray with --address"
    )
    assert stub.calls == ["init", "shutdown"] * 3
    assert pauses == list(PAUSES)


@pytest.fixture
def other_children() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Child processes of another process's session, and of an earlier session of this process."""
    sessions = [f"session_2026-01-01_1_{os.getpid()}1", f"session_2026-01-01_1_{os.getpid()}"]
    children = [
        subprocess.Popen([sys.executable, "-c", SLEEP, f"--session-dir=/tmp/ray/{session}"]) for session in sessions
    ]
    yield children
    for child in children:
        child.kill()
        child.wait()


@pytest.mark.usefixtures("pauses")
def test_processes_of_failed_start_are_ended(
    monkeypatch: pytest.MonkeyPatch, other_children: list[subprocess.Popen[bytes]]
) -> None:
    import psutil

    name = f"session_2026-11-29_04-20-58_123456_{os.getpid()}"
    stub = install(monkeypatch, StubRay(1, leave=[f"--session-dir=/tmp/ray/{name}"]))
    grandchildren: list[psutil.Process] = []
    shutdown = stub.shutdown

    def shutdown_once_grandchild_runs() -> None:
        parent = psutil.Process(stub.left[-1].pid)
        while not (found := parent.children()):
            pass
        grandchildren.extend(found)
        shutdown()

    monkeypatch.setattr(ray, "shutdown", shutdown_once_grandchild_runs)
    start_local_ray(4)
    assert len(stub.left) == len(grandchildren) == 1
    assert not psutil.pid_exists(stub.left[0].pid)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in grandchildren)
    assert [child.poll() for child in other_children] == [None, None]


REAL = """
import contextlib
import json
import ray
import psutil
import ray._private.node, ray._private.services as services
from uniad_ray.pipelines.cluster import ray_start
from uniad_ray.pipelines.cluster.session import ray_session

class LateClock:
    '''Ray's clock at the first try: its 30 seconds are over at once.'''
    def __init__(self, time): self.time, self.now = time, 0.0
    def __getattr__(self, name): return getattr(self.time, name)
    def monotonic(self):
        self.now += 60.0
        return self.now

clock, get_node, end = ray._private.node.time, services.get_node, ray_start._end_left_processes
left = {}

def refuse(*_):
    raise RuntimeError("the node is not there yet")

def of_ray():
    found = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found[process.pid] = " ".join(process.cmdline())
    return {pid: command for pid, command in found.items() if "session_" in command}

def recorded(others):
    left.update(of_ray())
    end(others)
    left["after"] = len(of_ray())
    ray._private.node.time, services.get_node = clock, get_node

ray._private.node.time, services.get_node, ray_start._end_left_processes = LateClock(clock), refuse, recorded
with ray_session():
    works = ray.get(ray.remote(lambda: 7).remote())
after = left.pop("after")
alive = [pid for pid in left if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
print(json.dumps({"left": list(left.values()), "after": after, "alive": alive, "works": works}))
"""


@pytest.mark.slow
def test_ray_start_recovers_from_one_timeout() -> None:
    """With a real Ray: the processes of the failed try are killed, and the next try succeeds."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", REAL], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert any("gcs_server" in command for command in found["left"])
    assert any("raylet" in command for command in found["left"])
    assert (found["after"], found["alive"], found["works"]) == (0, [], 7)
