"""Runs `uniad-ray nightly` without Ray, in a process that a test can kill."""

from __future__ import annotations

import sys

import pytest
from support.nights import without_ray

from uniad_ray.cli import main

if __name__ == "__main__":
    without_ray(pytest.MonkeyPatch())
    main(["nightly", *sys.argv[1:]])
