"""The `uniad-ray` command of a page's shell: one process runs all its verbs and starts Ray once."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from support.job_cluster import MARK, kill_marked, remove
from support.ray_head import END_WITH_PARENT

SUPPORT = Path(__file__).parent
START_SECONDS = 120
STOP_SECONDS = 30


@contextmanager
def running_verbs(folder: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Runs the process within a `with` block, and kills it with all its descendants.

    Args:
        folder: Working directory of the process and of its Ray workers.
        environment: Its environment until a shell runs a verb.

    Yields:
        The variables that a shell needs to find it.
    """
    mark = secrets.token_hex(8)
    # Paths of sockets must be short.
    place = Path(tempfile.mkdtemp(prefix="verbs-"))
    client, server, log = place / "bin/uniad-ray", place / "socket", place / "log"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {SUPPORT / "verb_client.py"} "$@"\n')
    client.chmod(0o755)
    starter = [sys.executable, "-I", "-S", "-c", END_WITH_PARENT, str(os.getpid())]
    paths = [str(SUPPORT.parent), *filter(None, [environment.get("PYTHONPATH")])]
    variables = {
        MARK: mark,
        "VERB_SERVER": str(server),
        # `uniad-ray serve` in a page joins the same Ray.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Keeps Serve from restarting a proxy that starts slowly on a busy machine.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }
    process = None
    try:
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*starter, sys.executable, "-m", "support.verb_server", str(server)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=folder,
                env={**environment, **variables, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not server.exists():
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield {**variables, "PATH": f"{client.parent}{os.pathsep}{environment['PATH']}"}
    finally:
        if process is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            kill_marked(mark)
            process.wait()
        remove(place)
