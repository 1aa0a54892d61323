"""A separate Ray head that commands can join."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.job_cluster import MARK, kill_marked, remove, wait_for_runtime
from support.s3_server import DIE_WITH_PARENT, free_ports

# On SIGTERM, `ray start --block` ends all its processes; killed tests therefore leave none behind.
END_WITH_PARENT = DIE_WITH_PARENT.replace("SIGKILL", "SIGTERM")


@contextmanager
def running_head(cpus: int, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Runs a head within a `with` block, and ends it with all its processes.

    Args:
        cpus: Number of CPUs that it declares.
        environment: Environment of its workers.

    Yields:
        The variables that commands need to join it.
    """
    mark = secrets.token_hex(8)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    gcs, dashboard, client, agent = free_ports(4)
    # Ray puts its sockets under this folder, and their paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray-head-"))
    log = folder / "head.log"
    options = [
        f"--num-cpus={cpus}",
        f"--port={gcs}",
        f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}",
        f"--dashboard-agent-listen-port={agent}",
        # Workers take any free port, to avoid conflicts with other heads on this machine.
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--temp-dir={folder}",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    starter = [sys.executable, "-I", "-S", "-c", END_WITH_PARENT, str(os.getpid())]
    process = None
    try:
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*starter, str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *options],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=folder,
                env={**environment, **token, MARK: mark},
                start_new_session=True,
            )
        wait_for_runtime(log, process)
        address = re.search(r"--address='?([\d.]+:\d+)", log.read_text())
        assert address, log.read_text()[-3000:]
        yield {"RAY_ADDRESS": address[1], **token}
    finally:
        # On SIGTERM, it would take 30 seconds to end.
        kill_marked(mark)
        if process is not None:
            process.wait()
        remove(folder)
