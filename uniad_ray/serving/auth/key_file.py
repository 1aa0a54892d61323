"""Create and revoke access keys in the key file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import yaml
from pydantic import ValidationError

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError
from uniad_ray.serving.auth.keys import AccessKey, KeyFile, Right, hash_key, new_key, read_keys


class MadeKey(StrictModel):
    """A new key. The key itself is shown only here.

    Attributes:
        name: Name of the key.
        key: The key.
        keys: Path of the key file, which stores the hash.
    """

    name: str
    key: str
    keys: str


class RevokedKey(StrictModel):
    """A key that was revoked."""

    name: str
    keys: str


def add_key(
    path: str,
    name: str,
    *,
    categories: tuple[str, ...] | None = None,
    rights: frozenset[Right] = frozenset({"score"}),
    images_a_minute: float = 600.0,
) -> MadeKey:
    """Create a key and add its hash to the file; the file is created if missing.

    Raises:
        ConfigError: The file cannot be read or written, or already has a key of that name.
    """
    place = Path(path).expanduser()
    known = read_keys(place) if place.exists() else ()
    if any(entry.name == name for entry in known):
        raise ConfigError(f"{path}: already has a key {name!r}; choose another name, or --revoke it first")
    key = new_key()
    try:
        made = AccessKey(
            name=name, sha256=hash_key(key), categories=categories, rights=rights, images_a_minute=images_a_minute
        )
    except ValidationError as error:
        raise ConfigError(f"serve-key {name!r}: {error.errors()[0]['msg']}") from error
    _write(place, (*known, made))
    return MadeKey(name=name, key=key, keys=str(place))


def revoke_key(path: str, name: str) -> RevokedKey:
    """Remove a key from the file.

    Raises:
        ConfigError: The file cannot be read or written, or has no key of that name.
    """
    place = Path(path).expanduser()
    known = read_keys(place)
    if all(entry.name != name for entry in known):
        names = ", ".join(entry.name for entry in known) or "none"
        raise ConfigError(f"{path}: no key {name!r}; the keys are {names}")
    _write(place, tuple(entry for entry in known if entry.name != name))
    return RevokedKey(name=name, keys=str(place))


def _write(place: Path, keys: tuple[AccessKey, ...]) -> None:
    """Replace the file atomically: an endpoint never reads a partial file. Only the owner may read it."""
    document = KeyFile(keys=keys).model_dump(mode="json", exclude_none=True)
    for entry in document["keys"]:
        entry["rights"] = sorted(entry["rights"])
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                yaml.safe_dump(document, file, sort_keys=False, allow_unicode=True)
            Path(temporary).replace(place)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{place}: cannot write the key file: {error}") from error
