"""Starts Ray on this machine, and retries if the machine is too busy."""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import suppress
from typing import Final

from uniad_ray.errors import RunError

_logger = logging.getLogger(__name__)

PAUSES: Final = (2.0, 5.0)
"""Pauses between the tries to start Ray, in seconds."""
_END_SECONDS = 10.0


def start_local_ray(cpus: int) -> None:
    """Starts Ray on this machine.

    Ray gives up if its processes do not start within 30 seconds, which happens on a busy machine. A failed try is
    repeated after a pause; its left-over processes are killed first.

    Args:
        cpus: Number of logical CPUs for Ray's scheduler.

    Raises:
        RunError: Every try failed.
    """
    import ray

    tries = len(PAUSES) + 1
    for number, pause in enumerate((*PAUSES, None), start=1):
        children = _children()
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray also raises bare exceptions, for instance on a busy machine
            ray.shutdown()
            _end_left_processes(children)
            if pause is None:
                raise RunError(
                    f"Ray failed to start {tries} times: {first_line(error)} ({_load()}); "
                    "try again when the machine is less busy, or join a running Ray with --address"
                ) from error
            if number == tries - 1:
                _logger.warning("Ray failed to start %d times (%s); trying once more", number, _load())
            time.sleep(pause)
        else:
            return


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message without its full stop, or its type if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _children() -> set[int]:
    """Returns the PIDs of the child processes."""
    import psutil  # a dependency of Ray

    return {child.pid for child in psutil.Process().children()}


def _end_left_processes(others: set[int]) -> None:
    """Kills the processes of a failed start; `ray.shutdown` does not know them yet.

    Args:
        others: PIDs of the child processes from before the start.
    """
    import psutil  # a dependency of Ray

    # Each of these processes has the session folder as an argument, and its name holds the PID of the starting process.
    session = re.compile(rf"session_[\d_-]+_{os.getpid()}(?!\d)")
    left = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.pid not in others and session.search(" ".join(child.cmdline())):
                left += [child, *child.children(recursive=True)]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_END_SECONDS)


def _load() -> str:
    """Returns the load of the machine and its CPUs, such as `load 8.4 on 2 CPUs`."""
    cpus = f"{os.cpu_count()} CPUs"
    return f"load {os.getloadavg()[0]:.1f} on {cpus}" if hasattr(os, "getloadavg") else cpus
