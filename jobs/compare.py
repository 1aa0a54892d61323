"""Runs `uniad-ray compare` as a Ray job: `ray job submit -- python jobs/compare.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
