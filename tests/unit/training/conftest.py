"""Fixtures for the training tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_networks import save_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny CLIP with random parameters."""
    found = tmp_path_factory.mktemp("clip")
    save_clip(found)
    return found
