from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniad_ray.errors import StoreError
from uniad_ray.experts.shared.search.mapped_array import mapped_copy


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
def test_copy_is_equal_and_read_only(dtype: type[np.generic]) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)[:, ::2]

    copy = mapped_copy(array)

    assert isinstance(copy, np.memmap)
    assert copy.dtype == dtype
    assert np.array_equal(copy, array)
    with pytest.raises(ValueError, match="read-only"):
        copy[0, 0] = 1


def test_no_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    copy = mapped_copy(np.ones(1000))

    assert copy.sum() == 1000
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)

    with pytest.raises(StoreError, match=r"8000 bytes of a memory bank: No space left.*TMPDIR"):
        mapped_copy(np.ones(1000))
