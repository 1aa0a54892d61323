"""Runs the verbs of a page in one process that starts Ray once; shells send them through `verb_client`.

Run as `python -m support.verb_server SOCKET`. A verb runs with the folder, the environment and the streams of its
shell. To keep pages fast, `scenes` draws few images, and `embedded` takes smaller ones and trains for few steps.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

from uniad_ray.cli import main
from uniad_ray.errors import UserError
from uniad_ray.pipelines.cluster.session import ray_session

FEW_IMAGES = {"--train": 24, "--test-good": 6, "--logical": 6, "--structural": 6}
SMALL = (
    "image_size=[128, 128]",
    "map_size=32",
    "extractors.vit.config.input_size=112",
    "extractors.student.config.training.iterations=5",
    "experts.structural_teacher.config.epochs=1",
    "experts.structural_student.config.epochs=1",
    "fusions.fused.selection.images=4",
    "fusions.fused-teacher.selection.images=4",
    # With fewer images than this, a fit would use cross-fitting, which trains more students.
    f"calibration.holdout_from={FEW_IMAGES['--train']}",
)


def quick(arguments: list[str]) -> list[str]:
    """Returns the same command with fewer or smaller images, or fewer training steps; nothing else changes."""
    verb, *rest = arguments or [""]
    # Bundles bring their own configuration to `precompute`.
    is_default = "--profile" not in rest and not (verb == "precompute" and "--bundles" in rest)
    if verb in ("fit", "ablate", "precompute") and is_default:
        # The page's own options come later and take precedence.
        return [verb, *(word for change in SMALL for word in ("--set", change)), *rest]
    if verb == "scenes":
        given = dict(pairwise(rest))
        fewer = {option: min(int(given.get(option, most)), most) for option, most in FEW_IMAGES.items()}
        return [*arguments, *(f"{option}={count}" for option, count in fewer.items())]
    return arguments


def answer_clients(path: str) -> None:
    """Serves one client after another until the process is terminated."""
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as running:
        listening.bind(path)
        listening.listen()
        is_ray_there = False
        while True:
            connection, _ = listening.accept()
            with connection:
                _, streams, _, _ = socket.recv_fds(connection, 1, 3)
                asked = json.load(connection.makefile())
                with _environment(asked["environment"], asked["folder"]):
                    try:
                        if not is_ray_there:
                            # With the reader's environment, which Ray's workers inherit.
                            running.enter_context(ray_session())
                            is_ray_there = True
                    except UserError as error:
                        os.write(streams[2], f"error: {error}\n".encode())
                        answer = {"code": 2}
                    else:
                        answer = _answer(asked["arguments"], streams)
                    for stream in streams:
                        os.close(stream)
                connection.sendall(json.dumps(answer).encode())


def _answer(arguments: list[str], streams: Sequence[int]) -> dict[str, Any]:
    """Runs a verb and returns its exit code; for `serve`, returns the address of Ray instead."""
    if arguments[:1] == ["serve"]:
        import ray

        return {"join": {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}}
    # The Ray session has redirected stdout.
    with _streams(streams), redirect_stdout(sys.__stdout__):
        try:
            main(quick(arguments))
        except SystemExit as ended:
            return {"code": ended.code or 0}
        except BaseException:
            traceback.print_exc()
            return {"code": 1}


@contextmanager
def _environment(variables: dict[str, str], folder: str) -> Iterator[None]:
    before, here, paths = dict(os.environ), Path.cwd(), list(sys.path)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.path += [path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        os.chdir(here)
        sys.path[:] = paths


@contextmanager
def _streams(given: Sequence[int]) -> Iterator[None]:
    kept = [os.dup(number) for number in range(3)]
    for number, stream in enumerate(given):
        os.dup2(stream, number)
    try:
        yield
    finally:
        sys.__stdout__.flush()
        sys.__stderr__.flush()
        for number, stream in enumerate(kept):
            os.dup2(stream, number)
            os.close(stream)


if __name__ == "__main__":
    answer_clients(sys.argv[1])
