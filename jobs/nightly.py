"""Runs `uniad-ray nightly` as a Ray job: `ray job submit -- python jobs/nightly.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["nightly", *sys.argv[1:]])
