"""One way to name, read and write objects, whether they lie on a local disk or in an S3 store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from uniad_ray.archive.local_store import LocalStore
from uniad_ray.archive.store import (
    MAX_JSON_BYTES,
    Store,
    decode_json,
    encode_json,
    is_temporary,
)
from uniad_ray.errors import ObjectNotFoundError, StoreError

__all__ = ["Location", "ObjectInfo", "ObjectNotFoundError"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ALLOWED = "use s3://bucket/key, file:///path or a plain local path"


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing.

    Attributes:
        location: Where it is.
        relative: Posix path relative to the listed location.
        size: Bytes.
        version: Changes when the content does: the ETag on S3, `<size>-<mtime_ns>` locally.
    """

    location: Location
    relative: str
    size: int
    version: str


@dataclass(frozen=True)
class Location:
    """A place in a store: an object, or the folder of the objects below it.

    Holds strings only, so it can be hashed, pickled and sent to any worker; each process makes its own S3 client, from
    the environment and configuration files that boto3 reads. Every operation raises StoreError, with one line that
    names the URI and what to do, where the store cannot serve it.

    Attributes:
        bucket: The S3 bucket, or None for a local path.
        path: The S3 key, empty for the bucket itself; or the absolute local path. Never ends in a slash, the local root
            apart.
    """

    bucket: str | None
    path: str

    @classmethod
    def parse(cls, uri: str | os.PathLike[str]) -> Location:
        """Reads `s3://bucket/key`, `file:///path` or a local path.

        Args:
            uri: A local path is made absolute: `~` is expanded, `.` and `..` are taken out lexically. Only `file:` URIs
                are percent-decoded.

        Raises:
            StoreError: Another scheme, or an S3 key with empty, `.` or `..` segments.
        """
        text = os.fspath(uri)
        scheme = _SCHEME.match(text)
        if not text or "\0" in text:
            raise StoreError(f"{text!r} is no path; {_ALLOWED}")
        if scheme is None:
            if re.match(r"(s3|file):", text, re.IGNORECASE):
                raise StoreError(f"{text}: `//` is missing after the scheme; {_ALLOWED}")
            return cls(None, _absolute(text))
        rest = text[scheme.end() :]
        match scheme.group(1).lower():
            case "s3":
                bucket, _, key = rest.partition("/")
                if not bucket:
                    raise StoreError(f"{text}: the bucket is missing; {_ALLOWED}")
                return cls(bucket, "") / key.removesuffix("/") if key else cls(bucket, "")
            case "file":
                host, _, path = rest.partition("/")
                path = unquote(path)
                if host not in ("", "localhost") or "\0" in path:
                    raise StoreError(f"{text}: not a file on this machine; {_ALLOWED}")
                return cls(None, os.path.abspath(f"/{path}"))  # noqa: PTH100 - Path.absolute keeps `..`
            case other:
                raise StoreError(f"{text}: the scheme `{other}` is not supported; {_ALLOWED}")

    @property
    def uri(self) -> str:
        """`s3://bucket/key`, or the absolute local path; `parse` gives the same location back."""
        if self.bucket is None:
            return self.path
        return f"s3://{self.bucket}/{self.path}" if self.path else f"s3://{self.bucket}"

    @property
    def name(self) -> str:
        """The last segment; the bucket's name for the bucket itself."""
        return self.path.rpartition("/")[2] or self.bucket or ""

    @property
    def is_local(self) -> bool:
        """Whether this is a path on a local (or mounted) file system."""
        return self.bucket is None

    @property
    def local_path(self) -> Path:
        """The local path; StoreError on S3."""
        if self.bucket is not None:
            raise StoreError(f"{self.uri} is not on this machine; give a local path here")
        return Path(self.path)

    def __str__(self) -> str:
        """The URI."""
        return self.uri

    def __truediv__(self, child: str) -> Location:
        """The place `child` below this one.

        Args:
            child: Relative posix path.

        Raises:
            StoreError: `child` is absolute, has an empty, `.` or `..` segment, or a character that no store can keep.
        """
        if "\0" in child or any(segment in ("", ".", "..") for segment in child.split("/")):
            raise StoreError(
                f"{child!r} is no relative path below {self.uri}: no leading, double or trailing /, no . or .."
            )
        if self.bucket is not None and not _is_utf8(child):
            raise StoreError(f"{child!r} cannot be an S3 key below {self.uri}: it is not Unicode text; rename it")
        return Location(self.bucket, f"{self.path.rstrip('/')}/{child}" if self.path else child)

    def read_bytes(self, *, max_bytes: int | None = None) -> bytes:
        """The whole object.

        Args:
            max_bytes: A bound that is checked before the content is read.

        Raises:
            ObjectNotFoundError: It is not there; a folder is not an object.
            StoreError: It is larger than `max_bytes`, or cannot be read.
        """
        return self._store.read(self._store_path, max_bytes)

    def write_bytes(self, data: bytes, *, if_absent: bool = False) -> None:
        """Writes the object whole or not at all, and makes the folders above it.

        Locally a temporary file in the same folder is synced and then renamed (linked where `if_absent`); a writer that
        is killed leaves at most that file, which listings skip. On S3 it is a single PUT, with `If-None-Match: *` where
        `if_absent`; so of many racing writers exactly one wins.

        Args:
            data: At most 5 GiB on S3, the bound of a single PUT.
            if_absent: Refuse to replace an object.

        Raises:
            ObjectExistsError: `if_absent`, and the object is there. It may be this call's own: where the store's answer
                to the first attempt is lost, the repeated request meets what the first one wrote. Callers that must
                tell the two apart compare the content.
            StoreError: It cannot be written.
        """
        self._store.write(self._store_path, data, if_absent=if_absent)

    def read_json(self) -> Any:
        """The JSON document in the object.

        Raises:
            ObjectNotFoundError: It is not there.
            StoreError: It is not strict JSON in UTF-8, is larger than 256 MiB, or cannot be read.
        """
        return decode_json(self.uri, self.read_bytes(max_bytes=MAX_JSON_BYTES))

    def write_json(self, document: Any, *, if_absent: bool = False) -> None:
        """Writes a document as canonical JSON: sorted keys, indent 1, UTF-8, a trailing newline.

        Raises:
            ObjectExistsError: As in `write_bytes`.
            StoreError: It cannot be written.
            ValueError: NaN or infinity, which JSON does not have.
            TypeError: Something that is no JSON type.
        """
        self.write_bytes(encode_json(document), if_absent=if_absent)

    def exists(self) -> bool:
        """Whether there is an object here; a folder is none."""
        return self._store.exists(self._store_path)

    def list(self, *, suffix: str | None = None) -> Iterator[ObjectInfo]:
        """All objects below, recursively, in the UTF-8 byte order of their relative paths.

        Hidden files are listed, unfinished writes are not. A folder that is not there, and an object, list nothing.
        Memory is bounded by one local folder or one page of S3; only an S3-compatible store that lists more than one
        page out of order is held in memory to be sorted.

        Args:
            suffix: Only objects whose path ends so, for instance `.parquet`.

        Yields:
            One entry an object.
        """
        for entry in self._store.list(self._store_path):
            if not is_temporary(entry.relative) and (suffix is None or entry.relative.endswith(suffix)):
                yield ObjectInfo(self / entry.relative, entry.relative, entry.size, entry.version)

    def has_children(self) -> bool:
        """Whether `list` would yield anything."""
        return next(self.list(), None) is not None

    def open_seekable(self) -> BinaryIO:
        """The object as a seekable binary file, also a context manager; for one thread at a time.

        On S3 a large read is one ranged GET and small reads share a window of 128 KiB, so that
        `pyarrow.parquet.ParquetFile` can read one row group or column without the rest. An object that is replaced
        meanwhile raises StoreError rather than mixing two versions.

        Raises:
            ObjectNotFoundError: It is not there.
        """
        return self._store.open_seekable(self._store_path)

    def delete(self) -> None:
        """Deletes the object; nothing happens where there is none."""
        self._store.delete(self._store_path)

    def delete_tree(self) -> None:
        """Deletes all objects below, unfinished writes as well; nothing happens where there is nothing.

        Raises:
            StoreError: This is a whole bucket or the root of the file system, or something cannot be deleted.
        """
        if self.path in ("", "/"):
            raise StoreError(f"{self.uri}: refusing to delete everything in it; name a folder")
        self._store.delete_tree(self._store_path)

    @property
    def _store(self) -> Store:
        if self.bucket is None:
            return LocalStore()
        # boto3 takes long to import, and a command that touches no S3 URI does not need it.
        from uniad_ray.archive.s3_store import S3Store

        return S3Store()

    @property
    def _store_path(self) -> str:
        return self.path if self.bucket is None else f"{self.bucket}/{self.path}"


def _absolute(path: str) -> str:
    # `Path.absolute` keeps `..`, and `Path.resolve` would follow links: the URI is to stay as the user wrote it.
    absolute = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111
    return absolute.replace("//", "/", 1) if absolute.startswith("//") else absolute


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
