"""One interface to name, read and write objects on a local disk or in an S3 store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from uniad_ray.archive.stores.base import (
    MAX_JSON_BYTES,
    Store,
    StoredObject,
    decode_json,
    encode_json,
    is_temporary,
)
from uniad_ray.archive.stores.local import LocalStore
from uniad_ray.errors import ObjectNotFoundError, StoreError

__all__ = ["Location", "ObjectInfo", "ObjectNotFoundError"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ALLOWED = "use s3://bucket/key, file:///path or a plain local path"


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing.

    Attributes:
        location: Location of the object.
        relative: Posix path relative to the listed location.
        size: Bytes.
        version: Changes when the content does: the ETag on S3, `<size>-<mtime_ns>-<ctime_ns>` locally. It may also
            change while the content does not: after a `touch`, or if an upload has other parts.
        problem: Why the entry cannot be read; None if it can.
    """

    location: Location
    relative: str
    size: int
    version: str
    problem: str | None = None


@dataclass(frozen=True)
class Location:
    """A place in a store: an object, or the folder of the objects below it.

    It holds only strings, so it can be hashed, pickled and sent to any worker. Each process creates its own S3 client
    from the environment and the configuration files of boto3. If the store fails, every operation raises StoreError,
    with one line that names the URI and what to do.

    Attributes:
        bucket: The S3 bucket, or None for a local path.
        path: The S3 key (empty for the bucket itself), or the absolute local path. It never ends in a slash, except for
            the local root.
    """

    bucket: str | None
    path: str

    @classmethod
    def parse(cls, uri: str | os.PathLike[str]) -> Location:
        """Parses `s3://bucket/key`, `file:///path` or a local path.

        Args:
            uri: A local path is made absolute: `~` is expanded, `.` and `..` are resolved lexically. Only `file:` URIs
                are percent-decoded.

        Raises:
            StoreError: The scheme is unsupported, or an S3 key has empty, `.` or `..` segments.
        """
        text = os.fspath(uri)
        scheme = _SCHEME.match(text)
        if not text or "\0" in text:
            raise StoreError(f"{text!r} is not a path; {_ALLOWED}")
        if scheme is None:
            if re.match(r"(s3|file):", text, re.IGNORECASE):
                raise StoreError(f"{text}: missing `//` after the scheme; {_ALLOWED}")
            return cls(None, _absolute(text))
        rest = text[scheme.end() :]
        match scheme.group(1).lower():
            case "s3":
                bucket, _, key = rest.partition("/")
                if not bucket:
                    raise StoreError(f"{text}: missing bucket; {_ALLOWED}")
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
        """`s3://bucket/key`, or the absolute local path; `parse` returns the same location."""
        if self.bucket is None:
            return self.path
        return f"s3://{self.bucket}/{self.path}" if self.path else f"s3://{self.bucket}"

    @property
    def name(self) -> str:
        """The last segment, or the bucket's name for the bucket itself."""
        return self.path.rpartition("/")[2] or self.bucket or ""

    @property
    def is_local(self) -> bool:
        """Whether this is a path on a local (or mounted) file system."""
        return self.bucket is None

    @property
    def local_path(self) -> Path:
        """The local path; raises StoreError on S3."""
        if self.bucket is not None:
            raise StoreError(f"{self.uri} is not on this machine; use a local path here")
        return Path(self.path)

    def __str__(self) -> str:
        """The URI."""
        return self.uri

    def __truediv__(self, child: str) -> Location:
        """The location `child` below this one.

        Args:
            child: Relative posix path.

        Raises:
            StoreError: `child` is absolute, has an empty, `.` or `..` segment, or a character that no store supports.
        """
        if "\0" in child or any(segment in ("", ".", "..") for segment in child.split("/")):
            raise StoreError(
                f"{child!r} is not a relative path below {self.uri}: no leading, double or trailing /, no . or .."
            )
        if self.bucket is not None and not is_utf8(child):
            raise StoreError(f"{child!r} cannot be an S3 key below {self.uri}: it is not Unicode text; rename it")
        return Location(self.bucket, f"{self.path.rstrip('/')}/{child}" if self.path else child)

    def read_bytes(self, *, max_bytes: int | None = None) -> bytes:
        """The whole object.

        Args:
            max_bytes: Maximum size, checked before the content is read.

        Raises:
            ObjectNotFoundError: The object does not exist; a folder is not an object.
            StoreError: The object is larger than `max_bytes`, or cannot be read.
        """
        return self._store.read(self._store_path, max_bytes)

    def write_bytes(self, data: bytes, *, if_absent: bool = False) -> None:
        """Writes the object atomically, and creates the folders above it.

        Local: a temporary file in the same folder is synced and then renamed, or linked if `if_absent`. A writer that
        is killed leaves at most that file; listings skip it. S3: a single PUT, with `If-None-Match: *` if `if_absent`.
        Of several racing writers, exactly one wins.

        Args:
            data: At most 5 GiB on S3, the limit of a single PUT.
            if_absent: Refuse to replace an existing object.

        Raises:
            ObjectExistsError: `if_absent`, and the object exists. This call itself may have written it: if the response
                to the first attempt is lost, the retry finds the object of that attempt. Callers that must tell the
                two apart compare the content.
            StoreError: The object cannot be written.
        """
        self._store.write(self._store_path, data, if_absent=if_absent)

    def read_json(self) -> Any:
        """The JSON document in the object.

        Raises:
            ObjectNotFoundError: The object does not exist.
            StoreError: The object is not strict JSON in UTF-8, is larger than 256 MiB, or cannot be read.
        """
        return decode_json(self.uri, self.read_bytes(max_bytes=MAX_JSON_BYTES))

    def write_json(self, document: Any, *, if_absent: bool = False) -> None:
        """Writes a document as canonical JSON: sorted keys, indent 1, UTF-8, a trailing newline.

        Raises:
            ObjectExistsError: As in `write_bytes`.
            StoreError: The object cannot be written.
            ValueError: The document has NaN or infinity, which JSON does not support.
            TypeError: The document has a value of a type that JSON does not support.
        """
        self.write_bytes(encode_json(document), if_absent=if_absent)

    def exists(self) -> bool:
        """Whether an object exists here; a folder is not an object."""
        return self._store.exists(self._store_path)

    def info(self) -> ObjectInfo:
        """The object here as `list` gives it, without a listing; its relative path is empty.

        Raises:
            ObjectNotFoundError: The object does not exist.
            StoreError: It is no object, or may not be asked for.
        """
        found = self._store.status(self._store_path)
        return ObjectInfo(self, "", found.size, found.version)

    def list(self, *, suffix: str | None = None, with_unusable: bool = False) -> Iterator[ObjectInfo]:
        """All objects below, recursively, in the UTF-8 byte order of their relative paths.

        Hidden files are listed; unfinished writes are not. A missing folder, and an object, list nothing. Memory is
        bounded by one local folder or one page of S3. The exception is an S3-compatible store that lists several pages
        out of order: its listing is held in memory to be sorted.

        Args:
            suffix: List only objects whose path ends with this, for instance `.parquet`.
            with_unusable: Also list what cannot be read, with its problem: broken links, folders without permission,
                pipes, names that are not UTF-8 or no relative paths. Otherwise the first of these is an error, except
                that pipes are skipped and local names may be any bytes.

        Yields:
            One entry per object.
        """
        for entry in self._store.list(self._store_path, with_unusable=with_unusable):
            if is_temporary(entry.relative) or (suffix is not None and not entry.relative.endswith(suffix)):
                continue
            location, problem = self._listed(entry) if with_unusable else (self / entry.relative, None)
            yield ObjectInfo(location, entry.relative, entry.size, entry.version, problem)

    def _listed(self, entry: StoredObject) -> tuple[Location, str | None]:
        """The location of an entry, and why it cannot be read."""
        try:
            location, problem = self / entry.relative, entry.problem
        except StoreError:
            location = Location(self.bucket, f"{self.path}/{entry.relative}" if self.path else entry.relative)
            problem = "its key has an empty, . or .. segment; rename it"
        if problem is None and not is_utf8(entry.relative):
            problem = "its name is not UTF-8 text; rename it"
        return location, problem

    def has_children(self) -> bool:
        """Whether `list` would yield anything."""
        return next(self.list(), None) is not None

    def open_seekable(self) -> BinaryIO:
        """The object as a seekable binary file and context manager; not safe for several threads.

        On S3, a large read is one ranged GET; small reads share a window of 128 KiB. So
        `pyarrow.parquet.ParquetFile` can read one row group or column without the rest. If the object is replaced
        meanwhile, reading raises StoreError and never mixes two versions.

        Raises:
            ObjectNotFoundError: The object does not exist.
        """
        return self._store.open_seekable(self._store_path)

    def delete(self) -> None:
        """Deletes the object; does nothing if it does not exist."""
        self._store.delete(self._store_path)

    def delete_tree(self) -> None:
        """Deletes all objects below, including unfinished writes; does nothing if there are none.

        Raises:
            StoreError: The location is a whole bucket or the file system root, or something cannot be deleted.
        """
        if self.path in ("", "/"):
            raise StoreError(f"{self.uri}: refusing to delete the whole store; name a folder")
        self._store.delete_tree(self._store_path)

    @property
    def _store(self) -> Store:
        if self.bucket is None:
            return LocalStore()
        # boto3 is slow to import; a command without S3 URIs does not need it.
        from uniad_ray.archive.stores.s3 import S3Store

        return S3Store()

    @property
    def _store_path(self) -> str:
        return self.path if self.bucket is None else f"{self.bucket}/{self.path}"


def _absolute(path: str) -> str:
    # `Path.absolute` keeps `..`, and `Path.resolve` would follow links: keep the URI as the user wrote it.
    absolute = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111
    return absolute.replace("//", "/", 1) if absolute.startswith("//") else absolute


def is_utf8(text: str) -> bool:
    """Whether a name or path is Unicode text; names of local files may be any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
