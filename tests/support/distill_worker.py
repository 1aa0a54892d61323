"""One of two processes that train a tiny student together, without Ray.

Run as `python -m support.distill_worker RANK WORLD RENDEZVOUS FOLDER [STOP_AFTER]`; it exits as if killed after step
STOP_AFTER.
"""

from __future__ import annotations

import sys

from support.distilling import tiny_student, tiny_teachers
from support.normal_images import DrawnNormalImages
from support.process_group import process_group, stop_after

from uniad_ray.archive.stores.location import Location
from uniad_ray.training.distillation import Distillation


def main() -> None:
    """Trains the student."""
    rank, world, rendezvous, folder, *stop = sys.argv[1:]
    with process_group(rank, world, rendezvous) as group:
        training = Distillation(tiny_student(), tiny_teachers(), DrawnNormalImages(15), range(15), group=group)
        training.run(Location.parse(folder), on_step=stop_after(stop))


if __name__ == "__main__":
    main()
