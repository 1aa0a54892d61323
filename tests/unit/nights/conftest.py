"""What the tests of the nights share: a factory with a fitted category, and jobs without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.nights import without_ray, write_factory


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("factory")
    write_factory(root)
    return root


@pytest.fixture
def jobs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process, without Ray."""
    without_ray(monkeypatch)
