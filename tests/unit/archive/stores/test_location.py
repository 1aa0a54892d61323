"""The object stores. Tests with `store_root` run on the local disk and on a real S3 server."""

from __future__ import annotations

import copy
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ObjectExistsError, ObjectNotFoundError, StoreError


@pytest.fixture
def root(store_root: str) -> Location:
    return Location.parse(store_root)


def assert_one_line(error: BaseException, *words: str) -> None:
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


class TestParse:
    def test_s3(self) -> None:
        location = Location.parse("s3://bucket/a/b c.parquet")
        assert location == Location("bucket", "a/b c.parquet")
        assert (location.uri, str(location), location.name) == ("s3://bucket/a/b c.parquet",) * 2 + ("b c.parquet",)
        assert not location.is_local
        with pytest.raises(StoreError, match="not on this machine"):
            _ = location.local_path

    def test_trailing_slash_and_bare_bucket(self) -> None:
        assert Location.parse("s3://bucket/a/") == Location.parse("S3://bucket/a")
        assert Location.parse("s3://bucket") == Location.parse("s3://bucket/") == Location("bucket", "")
        assert (Location("bucket", "") / "a").uri == "s3://bucket/a"
        assert Location("bucket", "").name == "bucket"

    def test_local(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert Location.parse("a/../b").path == str(tmp_path / "b")
        assert Location.parse(tmp_path / "a").local_path == tmp_path / "a"
        assert Location.parse("~/a").uri == str(tmp_path / "home" / "a")
        assert Location.parse("file:///tmp/a%20b").path == "/tmp/a b"  # noqa: S108 - only parsed
        assert Location.parse("file://localhost/a") == Location.parse("/a") == Location.parse("//a")
        assert (Location.parse("/") / "a").path == "/a"

    @pytest.mark.parametrize(
        "uri",
        ["", "gs://b/k", "s3a://b/k", "http://h/k", "s3:/b/k", "s3://", "s3:///k", "file://host/a", "file:a", "a\0b"],
    )
    def test_refusal_names_the_allowed_forms(self, uri: str) -> None:
        with pytest.raises(StoreError, match="use s3://bucket/key, file:///path or a plain local path") as caught:
            Location.parse(uri)
        assert_one_line(caught.value)

    @pytest.mark.parametrize("uri", ["s3://b/../k", "s3://b/a//k", "s3://b//k", "s3://b/./k"])
    def test_keys_must_be_paths(self, uri: str) -> None:
        with pytest.raises(StoreError):
            Location.parse(uri)

    @pytest.mark.parametrize("start", ["s3://bucket/a", "/a"])
    def test_copies_are_equal_and_hash_alike(self, start: str) -> None:
        location = Location.parse(start)
        assert copy.deepcopy(location) == location
        assert {location: 1}[Location.parse(start)] == 1


class TestChild:
    @pytest.mark.parametrize("start", ["/root/folder", "s3://bucket/folder", "s3://bucket", "/"])
    @pytest.mark.parametrize("child", ["..", "a/../b", "/a", "", "a//b", "a/", ".", "./a", "a/..", "a\0"])
    def test_refused(self, start: str, child: str) -> None:
        with pytest.raises(StoreError):
            _ = Location.parse(start) / child

    @given(
        child=st.one_of(
            st.text(),
            st.lists(st.sampled_from(["..", ".", "", "a", "b c", "..a", "~", "s3:", "\\", "%2e"])).map("/".join),
        ),
        start=st.sampled_from(["/root/folder", "s3://bucket/folder"]),
    )
    def test_stays_below_and_survives_its_uri(self, child: str, start: str) -> None:
        try:
            location = Location.parse(start) / child
        except StoreError:
            return
        assert os.path.normpath(location.path) == location.path
        assert location.uri == f"{start}/{child}"
        assert Location.parse(location.uri) == location


class TestObjects:
    def test_round_trip(self, root: Location) -> None:
        location = root / "a/b c/é.bin"
        data = bytes(range(256)) * 1000
        assert not location.exists()
        location.write_bytes(data)
        assert location.exists()
        assert location.read_bytes() == data
        location.write_bytes(b"")
        assert location.read_bytes() == b""

    def test_missing(self, root: Location) -> None:
        (root / "folder/object").write_bytes(b"1")
        for missing in (root / "none", root / "none/below", root / "folder"):
            for operation in (missing.read_bytes, missing.read_json, missing.open_seekable):
                with pytest.raises(ObjectNotFoundError) as caught:
                    operation()
                assert_one_line(caught.value, missing.uri)
            assert not missing.exists()
            missing.delete()
        assert (root / "folder/object").read_bytes() == b"1"

    def test_bound(self, root: Location) -> None:
        location = root / "object"
        location.write_bytes(b"12345")
        assert location.read_bytes(max_bytes=5) == b"12345"
        with pytest.raises(StoreError, match="5 bytes exceed the limit of 4"):
            location.read_bytes(max_bytes=4)

    def test_if_absent_keeps_existing_object(self, root: Location) -> None:
        location = root / "object"
        location.write_bytes(b"first", if_absent=True)
        with pytest.raises(ObjectExistsError) as caught:
            location.write_bytes(b"second", if_absent=True)
        assert_one_line(caught.value, location.uri)
        assert location.read_bytes() == b"first"

    def test_if_absent_race_has_one_winner(self, root: Location) -> None:
        # This server delays some of the racing writers by a second.
        writers, rounds = 8, 20 if root.is_local else 2
        for round_number in range(rounds):
            location = root / f"race/{round_number}"
            barrier = threading.Barrier(writers)

            def write(writer: int, location: Location = location, barrier: threading.Barrier = barrier) -> int | None:
                barrier.wait()
                try:
                    location.write_bytes(b"%d" % writer * 100_000, if_absent=True)
                except ObjectExistsError:
                    return None
                return writer

            with ThreadPoolExecutor(writers) as pool:
                winners = [winner for winner in pool.map(write, range(writers)) if winner is not None]
            assert len(winners) == 1
            assert location.read_bytes() == b"%d" % winners[0] * 100_000
        assert len([*root.list()]) == rounds

    def test_json_is_canonical(self, root: Location) -> None:
        location = root / "document.json"
        location.write_json({"b": [1, "é"], "a": {"z": None, "y": 0.5}})
        assert (
            location.read_bytes() == '{\n "a": {\n  "y": 0.5,\n  "z": null\n },\n "b": [\n  1,\n  "é"\n ]\n}\n'.encode()
        )
        assert location.read_json() == {"a": {"y": 0.5, "z": None}, "b": [1, "é"]}
        with pytest.raises(ObjectExistsError):
            location.write_json({}, if_absent=True)
        with pytest.raises(ValueError, match="JSON compliant"):
            location.write_json({"score": float("nan")})

    @pytest.mark.parametrize("damaged", [b"", b'{"a": 1', b'{"a": NaN}', b"\xff\xfe{}", b"[" * 100_000])
    def test_corrupt_json_names_the_file(self, root: Location, damaged: bytes) -> None:
        location = root / "document.json"
        location.write_bytes(damaged)
        with pytest.raises(StoreError) as caught:
            location.read_json()
        assert_one_line(caught.value, location.uri, "not valid JSON")

    def test_delete(self, root: Location) -> None:
        for child in ("a", "tree/b", "tree/c/d", "tree-2/e"):
            (root / child).write_bytes(b"1")
        (root / "a").delete()
        (root / "a").delete()
        assert [entry.relative for entry in root.list()] == ["tree-2/e", "tree/b", "tree/c/d"]
        (root / "tree").delete_tree()
        (root / "tree").delete_tree()
        assert [entry.relative for entry in root.list()] == ["tree-2/e"]

    @pytest.mark.parametrize("uri", ["/", "s3://bucket"])
    def test_delete_tree_refuses_a_whole_store(self, uri: str) -> None:
        with pytest.raises(StoreError, match="refusing"):
            Location.parse(uri).delete_tree()


class TestList:
    NAMES = ("B", "a-b/x", "a.parquet", "a/x", "a/y/z", "a0", "~", ".hidden", "é", "\uff41", "\U0001f600")

    def test_order_and_content(self, root: Location) -> None:
        for name in self.NAMES:
            (root / name).write_bytes(name.encode())
        entries = [*root.list()]
        assert [entry.relative for entry in entries] == sorted(self.NAMES, key=str.encode)
        for entry in entries:
            assert entry.location == root / entry.relative
            assert entry.location.read_bytes() == entry.relative.encode()
            assert entry.size == len(entry.relative.encode())
        assert [entry.relative for entry in root.list(suffix=".parquet")] == ["a.parquet"]
        assert [entry.relative for entry in (root / "a").list()] == ["x", "y/z"]

    def test_version_follows_the_content(self, root: Location) -> None:
        location = root / "folder/object"
        location.write_bytes(b"one")
        (before,) = (root / "folder").list()
        (again,) = (root / "folder").list()
        location.write_bytes(b"other")
        (after,) = (root / "folder").list()
        assert before == again
        assert before.version != after.version
        if root.is_local:
            status = location.local_path.stat()
            assert after.version == f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
        else:
            assert after.version == hashlib.md5(b"other", usedforsecurity=False).hexdigest()

    def test_nothing_is_unusable_here(self, root: Location) -> None:
        for name in self.NAMES:
            (root / name).write_bytes(name.encode())
        assert [*root.list(with_unusable=True)] == [*root.list()]

    def test_nothing_below(self, root: Location) -> None:
        assert [*root.list()] == []
        assert not root.has_children()
        (root / "object").write_bytes(b"1")
        assert [*(root / "object").list()] == []
        assert not (root / "object").has_children()
        assert root.has_children()

    def test_unfinished_writes_are_skipped_and_swept(self, root: Location) -> None:
        (root / "folder/.uniad-ray-0123.tmp").write_bytes(b"half")
        assert [*root.list()] == []
        assert not root.has_children()
        (root / "folder").delete_tree()
        with pytest.raises(ObjectNotFoundError):
            (root / "folder/.uniad-ray-0123.tmp").read_bytes()
