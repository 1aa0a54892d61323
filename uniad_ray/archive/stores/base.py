"""The contract between `Location` and the stores behind it, local and S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from uniad_ray.errors import ObjectTooLargeError, StoreError

MAX_JSON_BYTES = 256 * 2**20
_TEMPORARY_PREFIX = ".uniad-ray-"
_TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True)
class StoredObject:
    """One object of a listing.

    Attributes:
        relative: Posix path relative to the listed folder.
        size: Bytes.
        version: Changes when the content does; see `ObjectInfo`.
        problem: Why the entry cannot be read; None if it can.
    """

    relative: str
    size: int
    version: str
    problem: str | None = None


class Store(Protocol):
    """The operations of a store; `path` is an absolute local path or `bucket/key`.

    If the store fails, every method raises StoreError, with one line that names the place and what to do.
    """

    def read(self, path: str, max_bytes: int | None) -> bytes:
        """The whole object; ObjectNotFoundError if it does not exist."""
        ...

    def write(self, path: str, data: bytes, *, if_absent: bool) -> None:
        """Writes atomically; ObjectExistsError if `if_absent` and the object exists."""
        ...

    def exists(self, path: str) -> bool:
        """Whether `path` is an object."""
        ...

    def status(self, path: str) -> StoredObject:
        """Size and version of one object, as `list` gives them; ObjectNotFoundError if it does not exist."""
        ...

    def list(self, path: str, *, with_unusable: bool = False) -> Iterator[StoredObject]:
        """All objects below the folder `path`, in UTF-8 byte order of their relative paths.

        With `with_unusable`, an entry that cannot be read is listed with its problem; without, it is an error.
        """
        ...

    def open_seekable(self, path: str) -> BinaryIO:
        """The object as a seekable file; ObjectNotFoundError if it does not exist."""
        ...

    def delete(self, path: str) -> None:
        """Deletes one object if it exists."""
        ...

    def delete_tree(self, path: str) -> None:
        """Deletes all objects below the folder `path`."""
        ...


def temporary_name(token: str) -> str:
    """Name of the temporary file of an unfinished write; listings skip such names."""
    return f"{_TEMPORARY_PREFIX}{token}{_TEMPORARY_SUFFIX}"


def is_temporary(relative: str) -> bool:
    """Whether a listed path is an unfinished write, of a running or a killed writer."""
    name = relative.rpartition("/")[2]
    return name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX)


def too_large(uri: str, size: int, max_bytes: int) -> ObjectTooLargeError:
    """The error for an object larger than the reader's limit."""
    return ObjectTooLargeError(
        f"{uri}: {size} bytes exceed the limit of {max_bytes} here; check that it is the right object"
    )


def encode_json(document: Any) -> bytes:
    """Encodes JSON with sorted keys: equal documents have equal bytes.

    Args:
        document: A document of JSON types.

    Returns:
        UTF-8 with an indent of one space and a trailing newline.

    Raises:
        ValueError: The document has NaN or infinity, which JSON does not support.
        TypeError: The document has a value of a type that JSON does not support.
    """
    text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def decode_json(uri: str, data: bytes) -> Any:
    """Decodes the document; StoreError, naming `uri`, if it is not strict JSON in UTF-8."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise StoreError(f"{uri}: not valid JSON ({reason}); restore or recreate the file") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
