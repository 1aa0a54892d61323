"""Access keys: stored as hashes in a YAML file, compared in constant time, changed without a restart."""

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
"""`score` allows scoring images, `runs` browsing runs, `review` marking false alarms and misses."""


class AccessDeniedError(UniadRayError):
    """The request is not authorized."""


class NotAuthenticatedError(AccessDeniedError):
    """The key is missing or unknown."""


class NotAllowedError(AccessDeniedError):
    """The key does not allow the operation."""


class AccessKey(StrictModel):
    """An access key.

    Attributes:
        name: Name of the key in logs and marks.
        sha256: Hash of the key; the key itself is not stored. Keys are long and random, which makes a slow hash
            unnecessary.
        categories: Categories the key is valid for; None allows all.
        rights: Operations the key allows.
        images_a_minute: Rate limit, in images per minute.
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
            raise ValueError("expected 64 hexadecimal digits; create keys with `uniad-ray serve-key`")
        return value

    def require(self, right: Right, category: str | None = None) -> None:
        """Check that the key allows an operation.

        Raises:
            NotAllowedError: The key lacks the right, or is not valid for the category.
        """
        if right not in self.rights:
            raise NotAllowedError(f"the key {self.name!r} does not have the right {right!r}")
        if category is not None and not self.covers(category):
            raise NotAllowedError(f"the key {self.name!r} is not valid for category {category!r}")

    def covers(self, category: str) -> bool:
        """Whether the key is valid for a category."""
        return self.categories is None or category in self.categories


EVERYBODY: Final = AccessKey(
    name="everybody",
    sha256="0" * 64,
    rights=frozenset({"score", "runs", "review"}),
    images_a_minute=1e9,
)
"""The key of every request if no keys are configured."""


class KeyFile(StrictModel):
    """Content of the key file."""

    keys: tuple[AccessKey, ...]

    @field_validator("keys")
    @classmethod
    def _check_names(cls, keys: tuple[AccessKey, ...]) -> tuple[AccessKey, ...]:
        for attribute in ("name", "sha256"):
            values = [getattr(key, attribute) for key in keys]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"duplicate {attribute} {twice[0]!r}")
        return keys


class KeyRing:
    """The keys of a file, reloaded when the file changes."""

    def __init__(
        self, path: str | None, *, refresh_seconds: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the file.

        Args:
            path: The key file; None disables access control.
            refresh_seconds: Interval between checks of the file for changes.
            clock: Monotonic clock, in seconds.

        Raises:
            ConfigError: The file cannot be read or is invalid.
        """
        self._path = None if path is None else Path(path).expanduser()
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._looked_at = clock()
        self._stamp = self._read_stamp()
        self._keys = () if self._path is None else read_keys(self._path)

    @property
    def is_open(self) -> bool:
        """Whether requests need no key."""
        return self._path is None

    def identify(self, authorization: str | None, api_key: str | None) -> AccessKey:
        """Find the key of a request.

        Args:
            authorization: The `Authorization` header, as `Bearer KEY`.
            api_key: The `X-API-Key` header.

        Raises:
            NotAuthenticatedError: The key is missing or unknown.
        """
        if self._path is None:
            return EVERYBODY
        self._refresh()
        scheme, _, token = (authorization or "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else api_key
        if not given:
            raise NotAuthenticatedError("send `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        digest = hash_key(given)
        # Compare with every key: the time must not depend on which one matches.
        found = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        if not found:
            raise NotAuthenticatedError("unknown access key; check the key, or ask the operator for a new one")
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
            # A half-written file must lock nobody out: keep the old keys until the file is valid.
            _logger.warning("cannot reload the keys, keeping the old ones: %s", error)
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
    """Read a key file.

    Raises:
        ConfigError: The file cannot be read, is too large, or is invalid.
    """
    try:
        if path.stat().st_size > MAX_KEYS_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_KEYS_BYTES} bytes; keep one entry per key")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot read the keys: {error}; create a key with `uniad-ray serve-key NAME --keys {path}`"
        ) from error
    return validate(KeyFile, parse_yaml(text, where=str(path)), where=str(path)).keys


def hash_key(key: str) -> str:
    """Return the sha256 of a key, in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """Generate a random key of 256 bits, safe to send in a header."""
    return secrets.token_urlsafe(32)
