"""File system specifics: renames, links, folders in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from uniad_ray.archive.stores.local import seconds_to_settle
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ObjectDeniedError, StoreError


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

    def test_version_changes_if_the_time_is_set_back(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"one")
        (before,) = Location.parse(tmp_path).list()
        times = path.stat()
        while path.stat().st_ctime_ns == times.st_ctime_ns:
            path.write_bytes(b"two")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        (after,) = Location.parse(tmp_path).list()
        assert path.stat().st_mtime_ns == times.st_mtime_ns
        assert before.version != after.version

    def test_permission_denied_is_its_own_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def denied(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
        with pytest.raises(ObjectDeniedError, match="permission denied; grant access"):
            (Location.parse(tmp_path) / "a").read_bytes()


class TestUnusableEntries:
    def test_each_is_listed_with_its_problem(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"1")
        (tmp_path / "broken").symlink_to(tmp_path / "none")
        (tmp_path / "circle").symlink_to(tmp_path)
        (tmp_path / "itself").symlink_to(tmp_path / "itself")
        os.mkfifo(tmp_path / "pipe")
        os.close(os.open(os.fsencode(tmp_path) + b"/Stra\xdfe.png", os.O_CREAT))
        problems = {
            os.fsencode(info.relative): info.problem for info in Location.parse(tmp_path).list(with_unusable=True)
        }
        assert problems == {
            b"Stra\xdfe.png": "its name is not UTF-8 text; rename it",
            b"a.png": None,
            b"broken": "broken link; fix or remove it",
            b"circle": "a link points to a parent folder; remove the link",
            b"itself": "Too many levels of symbolic links; check the disk and the path",
            b"pipe": "not a regular file, but a pipe, a socket or a device",
        }

    def test_closed_folder_affects_nothing_else(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("a/0.png", "lost+found/1.png", "z.png"):
            (Location.parse(tmp_path) / name).write_bytes(b"1")
        scandir = os.scandir

        def closed(path: str) -> object:
            if str(path).endswith("lost+found"):
                raise PermissionError(13, "Permission denied")
            return scandir(path)

        monkeypatch.setattr(os, "scandir", closed)
        found = [(info.relative, info.problem) for info in Location.parse(tmp_path).list(with_unusable=True)]
        denied = "permission denied; grant access, or use another path"
        assert found == [("a/0.png", None), ("lost+found", denied), ("z.png", None)]
        with pytest.raises(StoreError, match=r"lost\+found: permission denied"):
            [*Location.parse(tmp_path).list()]
        with pytest.raises(StoreError, match="permission denied"):
            [*(Location.parse(tmp_path) / "lost+found").list(with_unusable=True)]


@pytest.mark.parametrize(
    ("version", "seconds"),
    [
        ("10-99000000000-100000000000", 1.5),
        ("10-100000000000-99000000000", 1.5),
        ("10-99000000000-100000000001", 0.0),
        ("10-90000000000-98000000000", 0.0),
        ("10-900000000000-900000000000", 2.0),
        ("10--5000000000--7000000000", 0.0),
    ],
)
def test_only_new_files_with_rounded_times_must_settle(version: str, seconds: float) -> None:
    assert seconds_to_settle(version, now=100.5) == seconds
