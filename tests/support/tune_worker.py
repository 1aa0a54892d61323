"""One of two processes that tune a tiny CLIP together, without Ray.

Run as `python -m support.tune_worker RANK WORLD RENDEZVOUS CLIP FOLDER [STOP_AFTER]`; stops, as if killed, after a
step.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from support.tuning import clip_tuning

from uniad_ray.archive.object_store import Location
from uniad_ray.training.group import WorkerGroup


def main() -> None:
    """Tunes."""
    rank, world, rendezvous, clip, folder = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
    stop_after = int(sys.argv[6]) if len(sys.argv) > 6 else None
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)

    def stop(step: int) -> None:
        if step == stop_after:
            os._exit(0)

    tuning = clip_tuning(Path(clip), group=WorkerGroup(rank, world))
    tuning.run(Location.parse(folder), on_step=stop)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
