"""Runs `uniad-ray caption` as a Ray job: `ray job submit -- python jobs/caption.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["caption", *sys.argv[1:]])
