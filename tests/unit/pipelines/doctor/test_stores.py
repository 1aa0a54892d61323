from __future__ import annotations

from pathlib import Path

import pytest

from uniad_ray.archive.stores.local import LocalStore
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.stores.s3_client import s3_client
from uniad_ray.pipelines.doctor.stores import PROBE, store_checks


def results(uri: str, *, write: bool = True) -> dict[str, str]:
    return {check.name: check.status for check in store_checks(uri, write=write)}


def test_store_is_read_and_written_and_left_as_it_was(store_root: str) -> None:
    (Location.parse(store_root) / "a/b.txt").write_bytes(b"abc")
    found = results(store_root)
    own = {"credentials": "ok", "clock": "ok"} if store_root.startswith("s3") else {}
    assert found == {"read": "ok", "write": "ok", **own}
    assert [info.relative for info in Location.parse(store_root).list()] == ["a/b.txt"]


def test_empty_source_is_a_warning_and_empty_output_none(tmp_path: Path) -> None:
    assert results(str(tmp_path / "none"), write=False) == {"read": "warning"}
    assert results(str(tmp_path / "none")) == {"read": "ok", "write": "ok"}


def test_file_in_place_of_folder_fails_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (check,) = [check for check in store_checks(str(tmp_path / "file/inside"), write=True) if check.status != "ok"]
    assert (check.name, check.status, check.advice) == ("store", "failed", "use another path")


def test_unknown_scheme_and_missing_bucket_fail(s3_server: object) -> None:  # noqa: ARG001 - its environment
    assert results("ftp://host/x") == {"store": "failed"}
    assert results("s3://no-such-bucket-here/x") == {"credentials": "ok", "store": "failed"}


def test_missing_credentials_end_the_checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (check,) = store_checks("s3://bucket/x", write=True)
    assert (check.name, check.status) == ("credentials", "failed")
    assert "aws configure" in str(check.advice)


def test_store_without_conditional_writes_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = LocalStore.write
    monkeypatch.setattr(
        LocalStore,
        "write",
        lambda self, path, data, if_absent: write(self, path, data, if_absent=False),  # noqa: ARG005
    )
    checks = {check.name: check for check in store_checks(str(tmp_path), write=True)}
    assert checks["write"].status == "failed"
    assert "conditional writes" in str(checks["write"].advice)
    assert not list(tmp_path.glob(f"{PROBE}*"))


def test_wrong_clock_fails(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = s3_client()
    listing = client.list_objects_v2

    def late(**options: object) -> object:
        answer = listing(**options)
        answer["ResponseMetadata"]["HTTPHeaders"]["date"] = "Mon, 01 Jan 2024 00:00:00 GMT"
        return answer

    monkeypatch.setattr(client, "list_objects_v2", late)
    checks = {check.name: check for check in store_checks(s3_prefix, write=False)}
    assert checks["clock"].status == "failed"
    assert "ahead of the store" in checks["clock"].found
