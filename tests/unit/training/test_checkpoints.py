from __future__ import annotations

import logging

import numpy as np
import pytest

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ObjectNotFoundError, StoreError
from uniad_ray.training.array_file import read_arrays, write_arrays
from uniad_ray.training.checkpoints import KEPT, Checkpoint, CheckpointStore


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"weight": np.full((2, 3), step, dtype=np.float32)}, {"best_loss": step / 8})


def names(folder: Location) -> list[str]:
    return [info.relative for info in folder.list()]


@pytest.fixture
def folder(store_root: str) -> Location:
    return Location.parse(store_root) / "checkpoints"


def test_arrays_and_document_round_trip(store_root: str) -> None:
    location = Location.parse(store_root) / "state.safetensors"
    arrays = {
        "matrix": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "count": np.asarray(7, dtype=np.int64),
        "empty": np.zeros((0, 4), dtype=np.float16),
    }
    document = {"loss": 0.1, "none": None, "nested": [1, {"text": "naïve"}]}
    write_arrays(location, arrays, document)
    found, read = read_arrays(location)
    assert read == document
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_equal_content_has_equal_bytes(tmp_path: object) -> None:
    root = Location.parse(str(tmp_path))
    one, two = np.ones(3), np.zeros((2, 2))
    write_arrays(root / "a", {"one": one, "two": two}, {"x": 1, "y": 2})
    write_arrays(root / "b", {"two": two, "one": one}, {"y": 2, "x": 1})
    assert (root / "a").read_bytes() == (root / "b").read_bytes()


def test_flipped_bit_is_detected(tmp_path: object) -> None:
    location = Location.parse(str(tmp_path)) / "state"
    write_arrays(location, {"weight": np.ones(64, dtype=np.float32)}, {})
    data = bytearray(location.read_bytes())
    data[-5] ^= 1
    location.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="checksum mismatch"):
        read_arrays(location)


@pytest.mark.parametrize("data", [b"", b"no safetensors", b"\xff" * 64])
def test_other_files_are_refused(tmp_path: object, data: bytes) -> None:
    location = Location.parse(str(tmp_path)) / "state"
    location.write_bytes(data)
    with pytest.raises(StoreError, match="delete it"):
        read_arrays(location)


def test_newest_checkpoint_is_read(folder: Location) -> None:
    store = CheckpointStore(folder, "digest")
    assert store.latest() is None
    for step in (10, 20, 30):
        store.write(checkpoint(step))
    latest = CheckpointStore(folder, "digest").latest()
    assert latest is not None
    assert (latest.step, latest.document) == (30, {"best_loss": 30 / 8})
    np.testing.assert_array_equal(latest.arrays["weight"], np.full((2, 3), 30, dtype=np.float32))


def test_only_the_newest_are_kept(folder: Location) -> None:
    store = CheckpointStore(folder, "digest")
    for step in (5, 10, 15, 20):
        store.write(checkpoint(step))
    assert names(folder) == ["step-00000015.safetensors", "step-00000020.safetensors"]
    assert len(names(folder)) == KEPT
    store.clear()
    assert names(folder) == []


def test_corrupt_checkpoint_is_skipped(folder: Location, caplog: pytest.LogCaptureFixture) -> None:
    store = CheckpointStore(folder, "digest")
    store.write(checkpoint(10))
    store.write(checkpoint(20))
    newest = folder / "step-00000020.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING, "uniad_ray"):
        latest = store.latest()
    assert latest is not None
    assert latest.step == 10
    assert "step-00000020.safetensors" in caplog.text


def test_checkpoint_of_another_training_is_refused(folder: Location) -> None:
    CheckpointStore(folder, "other").write(checkpoint(10))
    store = CheckpointStore(folder, "digest")
    assert store.latest() is None
    with pytest.raises(StoreError, match="belongs to another training"):
        store.at(10)
    store.write(checkpoint(20))
    (folder / "step-00000030.safetensors").write_bytes((folder / "step-00000020.safetensors").read_bytes())
    latest = store.latest()
    assert latest is not None
    assert latest.step == 20


def test_missing_checkpoint_is_an_error(folder: Location) -> None:
    store = CheckpointStore(folder, "digest")
    (folder / "notes.txt").write_bytes(b"mine")
    with pytest.raises(ObjectNotFoundError):
        store.at(10)
    store.clear()
    assert names(folder) == ["notes.txt"]
