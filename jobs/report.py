"""Runs `uniad-ray report` as a Ray job: `ray job submit -- python jobs/report.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
