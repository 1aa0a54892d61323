from __future__ import annotations

from pathlib import Path

import pytest
from support.browsed_runs import KEYS, Served
from support.served_runs import run_images, write_served_run


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(write_served_run(tmp_path, run_images()), tmp_path)


@pytest.fixture
def guarded(tmp_path: Path) -> Served:
    return Served(write_served_run(tmp_path, run_images()), tmp_path, KEYS)
