from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import yaml

from uniad_ray.errors import ConfigError
from uniad_ray.serving.auth.keys import (
    EVERYBODY,
    AccessKey,
    KeyRing,
    NotAllowedError,
    NotAuthenticatedError,
    hash_key,
    new_key,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, **names: str) -> None:
    """Write a key file, `name=key`, with a time stamp that always differs from the last one."""
    entries = [{"name": name, "sha256": hash_key(key)} for name, key in names.items()]
    path.write_text(yaml.safe_dump({"keys": entries}))
    stamp = path.stat().st_mtime_ns + sum(map(ord, "".join(names)))
    os.utime(path, ns=(stamp, stamp))


def test_everything_is_allowed_without_key_file() -> None:
    ring = KeyRing(None)
    assert ring.is_open
    assert ring.identify(None, None) is EVERYBODY
    EVERYBODY.require("review", "anything")


def test_keys_are_identified_by_either_header(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    write(path, line="first-key", office="second-key")
    ring = KeyRing(str(path))
    assert not ring.is_open
    assert ring.identify("Bearer first-key", None).name == "line"
    assert ring.identify("bearer  second-key ", None).name == "office"
    assert ring.identify(None, "second-key").name == "office"
    for authorization, api_key in [
        (None, None),
        ("", ""),
        ("Bearer", None),
        ("Bearer third-key", None),
        ("Basic first-key", None),
        (None, hash_key("first-key")),
        # A valid key in the other header does not make up for a wrong bearer token.
        ("Bearer third-key", "first-key"),
    ]:
        with pytest.raises(NotAuthenticatedError):
            ring.identify(authorization, api_key)


def test_changed_keys_are_reloaded_and_broken_files_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock = tmp_path / "keys.yaml", Clock()
    write(path, line="old")
    ring = KeyRing(str(path), refresh_seconds=5, clock=clock)
    write(path, line="old", line2="new")
    with pytest.raises(NotAuthenticatedError):
        ring.identify(None, "new")
    clock.now = 5
    assert ring.identify(None, "new").name == "line2"
    path.write_text("keys: [half")
    clock.now = 10
    with caplog.at_level(logging.WARNING):
        assert ring.identify(None, "old").name == "line"
    assert "keeping the old ones" in caplog.text
    path.unlink()
    clock.now = 15
    assert ring.identify(None, "old").name == "line"
    write(path, line2="new")
    clock.now = 20
    assert ring.identify(None, "new").name == "line2"
    with pytest.raises(NotAuthenticatedError):
        ring.identify(None, "old")


def test_rights_and_categories() -> None:
    key = AccessKey(name="line", sha256="0" * 64, categories=("lids",))
    key.require("score")
    key.require("score", "lids")
    assert key.covers("lids")
    assert not key.covers("trays")
    with pytest.raises(NotAllowedError, match="'line' is not valid for category 'trays'"):
        key.require("score", "trays")
    with pytest.raises(NotAllowedError, match="'line' does not have the right 'review'"):
        key.require("review", "lids")


HASHES = ("a" * 64, "b" * 64)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keys: [half", "not valid YAML"),
        ("keys: []\nother: 1", "other: unknown key"),
        ("keys: [{name: a, sha256: abc}]", "keys.0.sha256: .*64 hexadecimal digits"),
        (f"keys: [{{name: a, sha256: {HASHES[0]}}}, {{name: a, sha256: {HASHES[1]}}}]", "duplicate name 'a'"),
        (f"keys: [{{name: a, sha256: {HASHES[0]}}}, {{name: b, sha256: {HASHES[0]}}}]", "duplicate sha256 'a+'"),
        (f"keys: [{{name: a, sha256: {HASHES[0]}, rights: [fly]}}]", "keys.0.rights"),
    ],
)
def test_invalid_key_file_gives_one_line_error(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        KeyRing(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_key_file_error_names_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="create a key with `uniad-ray serve-key"):
        KeyRing(str(tmp_path / "none.yaml"))


def test_new_keys_are_long_and_unique() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 43
