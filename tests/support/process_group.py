"""A process in a group that trains together, without Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from uniad_ray.training.group import WorkerGroup


@contextmanager
def process_group(rank: str, world: str, rendezvous: str) -> Iterator[WorkerGroup]:
    """Joins the group; the arguments come from the command line."""
    torch.set_num_threads(1)
    group = WorkerGroup(int(rank), int(world))
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=group.rank, world_size=group.world)
    yield group
    dist.destroy_process_group()


def stop_after(arguments: list[str]) -> Callable[[int], None]:
    """Exits the process as if killed, after the step in the arguments if given."""

    def on_step(step: int) -> None:
        if [str(step)] == arguments:
            os._exit(0)

    return on_step
