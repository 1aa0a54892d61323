"""One of two processes that tune a tiny CLIP together, without Ray.

Run as `python -m support.tune_worker RANK WORLD RENDEZVOUS CLIP FOLDER [STOP_AFTER]`; it exits as
if killed after step STOP_AFTER.
"""

from __future__ import annotations

import sys
from pathlib import Path

from support.process_group import process_group, stop_after
from support.tuning import clip_tuning

from uniad_ray.archive.stores.location import Location


def main() -> None:
    """Tunes the CLIP."""
    rank, world, rendezvous, clip, folder, *stop = sys.argv[1:]
    with process_group(rank, world, rendezvous) as group:
        clip_tuning(Path(clip), group=group).run(Location.parse(folder), on_step=stop_after(stop))


if __name__ == "__main__":
    main()
