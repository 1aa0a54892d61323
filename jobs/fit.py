"""Runs `uniad-ray fit` as a Ray job: `ray job submit -- python jobs/fit.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["fit", *sys.argv[1:]])
