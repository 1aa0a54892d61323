"""One of two processes that train a tiny student together, without Ray.

Run as `python -m support.distill_worker RANK WORLD RENDEZVOUS FOLDER [STOP_AFTER]`; stops, as if killed, after a step.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from support.distilling import tiny_student, tiny_teachers
from support.normals import DrawnNormals

from uniad_ray.archive.object_store import Location
from uniad_ray.training.distillation import Distillation
from uniad_ray.training.group import WorkerGroup


def main() -> None:
    """Trains."""
    rank, world, rendezvous, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    stop_after = int(sys.argv[5]) if len(sys.argv) > 5 else None
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)

    def stop(step: int) -> None:
        if step == stop_after:
            os._exit(0)

    training = Distillation(
        tiny_student(), tiny_teachers(), DrawnNormals(15), range(15), group=WorkerGroup(rank, world)
    )
    training.run(Location.parse(folder), on_step=stop)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
