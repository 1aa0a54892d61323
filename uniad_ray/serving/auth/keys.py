"""Access keys: kept as hashes in a YAML file, compared in constant time, changed without a restart."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator

from uniad_ray.config.base import StrictModel
from uniad_ray.config.loading import parse_yaml, validate
from uniad_ray.errors import ConfigError, UniadRayError

_logger = logging.getLogger(__name__)
MAX_KEYS_BYTES: Final = 1 << 20
_HASH: Final = re.compile(r"[0-9a-f]{64}")
Right = Literal["score", "runs", "review"]
"""`score` images; look at `runs`; `review` them, which is to mark false alarms and misses."""


class AccessDeniedError(UniadRayError):
    """A caller may not do what it asks for."""


class NotAuthenticatedError(AccessDeniedError):
    """There is no key, or an unknown one."""


class NotAllowedError(AccessDeniedError):
    """The key does not allow it."""


class AccessKey(StrictModel):
    """One key.

    Attributes:
        name: What the key is called in logs and marks.
        sha256: Hash of the key; the key itself is nowhere. Keys are long and random, so that no slow hash is needed.
        categories: Categories it is good for; None is all.
        rights: What may be done with it.
        images_a_minute: Images it may send.
    """

    name: str = Field(min_length=1, max_length=100)
    sha256: str
    categories: tuple[str, ...] | None = None
    rights: frozenset[Right] = frozenset({"score"})
    images_a_minute: float = Field(default=600.0, gt=0)

    @field_validator("sha256")
    @classmethod
    def _check_hash(cls, value: str) -> str:
        if not _HASH.fullmatch(value):
            raise ValueError("64 hexadecimal digits, as `uniad-ray serve-key` prints them")
        return value

    def require(self, right: Right, category: str | None = None) -> None:
        """Refuses what the key does not allow.

        Raises:
            NotAllowedError: It is not among its rights, or of another category.
        """
        if right not in self.rights:
            raise NotAllowedError(f"the key {self.name!r} has no right to {right}")
        if category is not None and not self.covers(category):
            raise NotAllowedError(f"the key {self.name!r} is not good for category {category!r}")

    def covers(self, category: str) -> bool:
        """Whether the key is good for a category."""
        return self.categories is None or category in self.categories


EVERYBODY: Final = AccessKey(
    name="everybody",
    sha256="0" * 64,
    rights=frozenset({"score", "runs", "review"}),
    images_a_minute=1e9,
)
"""What applies where no keys are configured."""


class KeyFile(StrictModel):
    """The content of the file."""

    keys: tuple[AccessKey, ...]

    @field_validator("keys")
    @classmethod
    def _check_names(cls, keys: tuple[AccessKey, ...]) -> tuple[AccessKey, ...]:
        for attribute in ("name", "sha256"):
            values = [getattr(key, attribute) for key in keys]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{attribute} {twice[0]!r} is there twice")
        return keys


class KeyRing:
    """The keys of a file, read again when it has changed."""

    def __init__(
        self, path: str | None, *, refresh_seconds: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Reads the file.

        Args:
            path: The file; None lets everybody in.
            refresh_seconds: How often the file is looked at.
            clock: Seconds that never go back.

        Raises:
            ConfigError: The file cannot be read, or is not as it should be.
        """
        self._path = None if path is None else Path(path).expanduser()
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._looked_at = clock()
        self._stamp = self._read_stamp()
        self._keys = () if self._path is None else read_keys(self._path)

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return self._path is None

    def identify(self, authorization: str | None, api_key: str | None) -> AccessKey:
        """Finds who is asking.

        Args:
            authorization: The header `Authorization`, as `Bearer KEY`.
            api_key: The header `X-API-Key`.

        Raises:
            NotAuthenticatedError: There is no key, or an unknown one.
        """
        if self._path is None:
            return EVERYBODY
        self._refresh()
        scheme, _, token = (authorization or "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else api_key
        if not given:
            raise NotAuthenticatedError("send `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        digest = hash_key(given)
        # All are compared, so that the time says nothing about which came close.
        found = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        if not found:
            raise NotAuthenticatedError("the key is not known here")
        return found[0]

    def _refresh(self) -> None:
        now = self._clock()
        if self._path is None or now - self._looked_at < self._refresh_seconds:
            return
        self._looked_at = now
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        try:
            self._keys = read_keys(self._path)
        except ConfigError as error:
            # A half-written file must lock nobody out; what was good stays good until the file is.
            _logger.warning("the keys stay as they were: %s", error)
            return
        self._stamp = stamp
        _logger.info("%s: %d keys", self._path, len(self._keys))

    def _read_stamp(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size


def read_keys(path: Path) -> tuple[AccessKey, ...]:
    """Reads a file of keys.

    Raises:
        ConfigError: It cannot be read, is too large, or is not as it should be.
    """
    try:
        if path.stat().st_size > MAX_KEYS_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_KEYS_BYTES} bytes; keep one entry a key")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read: {error}; make it with `uniad-ray serve-key NAME --keys {path}`"
        ) from error
    return validate(KeyFile, parse_yaml(text, where=str(path)), where=str(path)).keys


def hash_key(key: str) -> str:
    """sha256 of a key, hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """A fresh random key of 256 bits, fit for a header."""
    return secrets.token_urlsafe(32)
