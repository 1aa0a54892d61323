"""Runs `uniad-ray nightly` in processes that a test can kill."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

import pytest
from support.nights import without_ray

from uniad_ray.archive.stores.location import Location
from uniad_ray.cli import main

_FORKED = get_context("forkserver")
"""The server imports what a night needs once, which takes longer than the night; each night is a process of its own."""
_FORKED.set_forkserver_preload(["support.night_process"])


def start_night(options: Sequence[str], *, log: str, hold: str | None = None, with_ray: bool = False) -> BaseProcess:
    """Starts `uniad-ray nightly` in a process group of its own.

    Args:
        options: Its options.
        log: File that its output is added to.
        hold: The process stands still after it has written the file whose URI ends so, until it is killed.
        with_ray: Whether to start Ray; without, its tasks run in the process.
    """
    process = _FORKED.Process(target=_run, args=(list(options), hold, with_ray, log))
    process.start()
    return process


def _run(options: list[str], hold: str | None, with_ray: bool, log: str) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    patch = pytest.MonkeyPatch()
    if not with_ray:
        without_ray(patch)
    if hold is not None:
        _hold_after(patch, hold)
    sys.argv = ["uniad-ray"]
    main(["nightly", *options])


def _hold_after(patch: pytest.MonkeyPatch, suffix: str) -> None:
    write_bytes = Location.write_bytes

    def write_then_hold(self: Location, data: bytes, *, if_absent: bool = False) -> None:
        write_bytes(self, data, if_absent=if_absent)
        if self.uri.endswith(suffix):
            time.sleep(600)

    patch.setattr(Location, "write_bytes", write_then_hold)
