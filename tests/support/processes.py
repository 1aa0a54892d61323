"""Waits for running jobs, and finds their processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 300) -> None:
    """Waits until a running job has reached a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the job ended before it could be interrupted"
        assert time.monotonic() < deadline, "the job wrote nothing in time"
        time.sleep(0.02)


def workers_of(driver: int, name: bytes) -> list[int]:
    """Returns the descendants of a driver whose title contains a name."""
    parents: dict[int, int] = {}
    titles: dict[int, bytes] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(entry.name)] = (entry / "cmdline").read_bytes()
        except OSError:
            continue

    def is_below(pid: int) -> bool:
        while pid in parents and pid != driver:
            pid = parents[pid]
        return pid == driver

    return [pid for pid, title in titles.items() if name in title and is_below(pid)]
