"""A real expert that uses up the memory on images of one colour: as the kernel ends it, or as an allocation fails."""

from __future__ import annotations

import os
import resource
import signal

import numpy as np

from uniad_ray.experts.base import Evidence
from uniad_ray.experts.patch.memory import PatchMemory
from uniad_ray.perception.base import Perception

KILLS = (0, 0, 255)
FAILS = (0, 255, 0)


class DeadlyPatchMemory(PatchMemory):
    """A patch memory that ends its process on blue images, and runs into a limit of memory on green ones."""

    def score(self, perception: Perception) -> Evidence:
        if _has(perception, KILLS):
            os.kill(os.getpid(), signal.SIGKILL)
        if _has(perception, FAILS):
            _allocate_too_much()
        return super().score(perception)


def _has(perception: Perception, colour: tuple[int, int, int]) -> bool:
    return bool((perception.images == np.array(colour, np.uint8)).all(axis=(1, 2, 3)).any())


def _allocate_too_much() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (256 << 20, hard))
    try:
        np.ones(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
