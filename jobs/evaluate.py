"""Runs `uniad-ray evaluate` as a Ray job: `ray job submit -- python jobs/evaluate.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
