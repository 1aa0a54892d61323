"""Fixtures for the training tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.tiny_networks import save_clip


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in a fixed order: trainings agree bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny CLIP with random parameters."""
    found = tmp_path_factory.mktemp("clip")
    save_clip(found)
    return found
