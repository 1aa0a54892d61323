"""Runs `uniad-ray ingest` as a Ray job: `ray job submit -- python jobs/ingest.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["ingest", *sys.argv[1:]])
