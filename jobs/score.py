"""Runs `uniad-ray score` as a Ray job: `ray job submit -- python jobs/score.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["score", *sys.argv[1:]])
