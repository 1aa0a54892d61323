"""Starts Ray on this machine, again where the machine was too busy for it."""

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
"""Seconds between the tries to start Ray; there is one try more."""
_END_SECONDS = 10.0


def start_local_ray(cpus: int) -> None:
    """Starts Ray on this machine.

    Ray gives up where its processes are not up within 30 seconds, as happens on a busy machine. A failed try is
    repeated after a pause; what it left running is ended first.

    Args:
        cpus: Logical CPUs that Ray schedules by.

    Raises:
        RunError: Every try failed.
    """
    import ray

    tries = len(PAUSES) + 1
    for number, pause in enumerate((*PAUSES, None), start=1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray raises bare ones as well, for instance where the machine is too busy
            ray.shutdown()
            _end_left_processes()
            if pause is None:
                raise RunError(
                    f"Ray cannot be started on this machine, tried {tries} times: {first_line(error)} ({_load()}); "
                    "wait until the machine is quieter, or join a running Ray with --address"
                ) from error
            if number == tries - 1:
                _logger.warning("Ray failed to start %d times (%s); trying once more", number, _load())
            time.sleep(pause)
        else:
            return


def first_line(error: BaseException) -> str:
    """The first line of an error's text without its full stop, or its type where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _end_left_processes() -> None:
    """Ends the processes of a failed start, which `ray.shutdown` does not know yet."""
    import psutil  # Ray brings it.

    # Ray names the folder of a session, which is an argument of each of these processes, after the process that starts.
    session = re.compile(rf"session_[\d_-]+_{os.getpid()}(?!\d)")
    left = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if session.search(" ".join(child.cmdline())):
                left += [child, *child.children(recursive=True)]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_END_SECONDS)


def _load() -> str:
    """The load of the machine beside its CPUs, such as `load 8.4 on 2 CPUs`."""
    cpus = f"{os.cpu_count()} CPUs"
    return f"load {os.getloadavg()[0]:.1f} on {cpus}" if hasattr(os, "getloadavg") else cpus
