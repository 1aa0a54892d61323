"""Runs `uniad-ray ablate` as a Ray job: `ray job submit -- python jobs/ablate.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["ablate", *sys.argv[1:]])
