from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from uniad_ray.errors import ConfigError
from uniad_ray.serving.auth.key_file import add_key, revoke_key
from uniad_ray.serving.auth.keys import KeyRing, NotAuthenticatedError, read_keys


def test_created_keys_work_until_revoked(tmp_path: Path) -> None:
    path = tmp_path / "new folder/keys.yaml"
    line = add_key(str(path), "line", categories=("lids",), images_a_minute=60)
    office = add_key(str(path), "office", rights=frozenset({"runs", "review"}))
    ring = KeyRing(str(path))
    found = ring.identify(None, line.key)
    assert (found.name, found.categories, found.images_a_minute, found.rights) == ("line", ("lids",), 60, {"score"})
    assert ring.identify(None, office.key).rights == {"runs", "review"}
    assert revoke_key(str(path), "line").name == "line"
    ring = KeyRing(str(path))
    with pytest.raises(NotAuthenticatedError):
        ring.identify(None, line.key)
    assert ring.identify(None, office.key).name == "office"


def test_key_file_is_private_and_holds_only_hashes(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    made = add_key(str(path), "line")
    assert made.key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    (entry,) = yaml.safe_load(path.read_text())["keys"]
    assert entry["rights"] == ["score"]
    assert entry["name"] == "line"


def test_failures_leave_key_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    add_key(str(path), "line")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="already has a key 'line'"):
        add_key(str(path), "line")
    with pytest.raises(ConfigError, match="serve-key ''"):
        add_key(str(path), "")
    with pytest.raises(ConfigError, match="no key 'office'; the keys are line"):
        revoke_key(str(path), "office")
    with pytest.raises(ConfigError, match="cannot read the keys"):
        revoke_key(str(tmp_path / "none.yaml"), "line")
    assert path.read_bytes() == before
    path.write_text("keys: [half")
    with pytest.raises(ConfigError, match="not valid YAML"):
        add_key(str(path), "office")
    assert path.read_text() == "keys: [half"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the key file"):
        add_key(str(tmp_path / "file/keys.yaml"), "line")


def test_last_key_can_be_revoked(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    add_key(str(path), "line")
    revoke_key(str(path), "line")
    assert read_keys(path) == ()
