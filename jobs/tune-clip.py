"""Runs `uniad-ray tune-clip` as a Ray job: `ray job submit -- python jobs/tune-clip.py ARGUMENTS`."""

from __future__ import annotations

import sys

from uniad_ray.cli import main

if __name__ == "__main__":
    main(["tune-clip", *sys.argv[1:]])
