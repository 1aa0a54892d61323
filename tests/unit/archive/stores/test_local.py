"""File system specifics: renames, links, folders in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import StoreError


class TestLocalStore:
    WRITER = """
import os, sys, time
from uniad_ray.archive.stores.location import Location
def hang(descriptor):
    print("written", flush=True)
    time.sleep(600)
os.fsync = hang
Location.parse(sys.argv[1]).write_bytes(b"new" * 1000, if_absent=sys.argv[2] == "absent")
"""

    @pytest.mark.parametrize("condition", ["absent", "replace"])
    def test_killed_writer_leaves_no_partial_object(self, tmp_path: Path, condition: str) -> None:
        root = Location.parse(tmp_path)
        location = root / "folder/object"
        if condition == "replace":
            location.write_bytes(b"old")
        command = [sys.executable, "-c", self.WRITER, location.uri, condition]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "written\n"
            assert len([*(tmp_path / "folder").iterdir()]) == (1 if condition == "absent" else 2)
            writer.send_signal(signal.SIGKILL)
        assert [entry.relative for entry in root.list()] == ([] if condition == "absent" else ["folder/object"])
        assert condition == "absent" or location.read_bytes() == b"old"
        location.write_bytes(b"later", if_absent=condition == "absent")
        assert location.read_bytes() == b"later"

    def test_failed_write_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            (Location.parse(tmp_path) / "object").write_bytes(b"1")
        assert [*tmp_path.iterdir()] == []

    def test_parent_that_is_a_file_is_an_error(self, tmp_path: Path) -> None:
        root = Location.parse(tmp_path)
        (root / "file").write_bytes(b"1")
        for if_absent in (False, True):
            with pytest.raises(StoreError, match="file, not a folder"):
                (root / "file/below").write_bytes(b"1", if_absent=if_absent)
        (root / "folder/object").write_bytes(b"1")
        with pytest.raises(StoreError, match="is a folder"):
            (root / "folder").write_bytes(b"1")

    def test_needs_no_boto3(self, tmp_path: Path) -> None:
        code = (
            "import sys; from uniad_ray.archive.stores.location import Location; l = Location.parse(sys.argv[1]);"
            "l.write_json({}); l.read_json(); assert not {'boto3', 'botocore'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], check=True)

    def test_links(self, tmp_path: Path) -> None:
        root = Location.parse(tmp_path / "root")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/x").write_bytes(b"1")
        (root / "a").write_bytes(b"1")
        (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
        assert [entry.relative for entry in root.list()] == ["a", "link/x"]
        (tmp_path / "root/broken").symlink_to(tmp_path / "none")
        with pytest.raises(StoreError, match="broken link"):
            [*root.list()]
        (tmp_path / "root/broken").unlink()
        (tmp_path / "root/circle").symlink_to(tmp_path / "root")
        with pytest.raises(StoreError, match="points to a parent folder"):
            [*root.list()]
        root.delete_tree()
        assert (tmp_path / "elsewhere/x").exists()
