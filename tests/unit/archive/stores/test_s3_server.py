"""The S3 test server never outlives its session."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest


class TestS3Server:
    STARTER = """
import sys, time
from pathlib import Path
from support.s3_server import PORT_OPTIONS, free_ports, start_process
print(start_process(Path(sys.argv[1]), free_ports(len(PORT_OPTIONS))).pid, flush=True)
time.sleep(600)
"""

    def test_dies_with_a_killed_session(self, tmp_path: Path) -> None:
        if sys.platform != "linux":
            pytest.skip("needs PR_SET_PDEATHSIG")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-c", self.STARTER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as starter:
            assert starter.stdout is not None
            server = Path("/proc") / starter.stdout.readline().strip()
            assert wait_for(lambda: (server / "comm").read_text() == "weed\n")
            starter.kill()
        # An unreaped zombie counts as dead.
        assert wait_for(lambda: is_dead(server))


def is_dead(process: Path) -> bool:
    try:
        return "State:\tZ" in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
