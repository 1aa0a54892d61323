"""Runs `uniad-ray precompute` as a Ray job: `ray job submit -- python jobs/precompute.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["precompute", *sys.argv[1:]])
