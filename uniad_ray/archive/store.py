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
        version: Changes when the content does: the ETag on S3, size and modification time locally.
    """

    relative: str
    size: int
    version: str


class Store(Protocol):
    """The operations of a store; `path` is an absolute local path or `bucket/key`.

    Every method raises StoreError, with one line that names the place and what to do, where the store cannot serve it.
    """

    def read(self, path: str, max_bytes: int | None) -> bytes:
        """The whole object; ObjectNotFoundError where there is none."""
        ...

    def write(self, path: str, data: bytes, *, if_absent: bool) -> None:
        """Writes whole or not at all; ObjectExistsError where `if_absent` and there is one."""
        ...

    def exists(self, path: str) -> bool:
        """Whether `path` is an object."""
        ...

    def list(self, path: str) -> Iterator[StoredObject]:
        """All objects below the folder `path`, in UTF-8 byte order of their relative paths."""
        ...

    def open_seekable(self, path: str) -> BinaryIO:
        """The object as a seekable file; ObjectNotFoundError where there is none."""
        ...

    def delete(self, path: str) -> None:
        """Deletes one object if it is there."""
        ...

    def delete_tree(self, path: str) -> None:
        """Deletes all objects below the folder `path`."""
        ...


def temporary_name(token: str) -> str:
    """The file name under which a writer keeps an unfinished object; listings skip such names."""
    return f"{_TEMPORARY_PREFIX}{token}{_TEMPORARY_SUFFIX}"


def is_temporary(relative: str) -> bool:
    """Whether a listed path is the unfinished object of a writer, living or killed."""
    name = relative.rpartition("/")[2]
    return name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX)


def too_large(uri: str, size: int, max_bytes: int) -> ObjectTooLargeError:
    """The error for an object beyond the reader's bound."""
    return ObjectTooLargeError(
        f"{uri}: {size} bytes, more than the {max_bytes} allowed here; check that it is the right object"
    )


def encode_json(document: Any) -> bytes:
    """JSON with sorted keys, so that equal documents have equal bytes.

    Args:
        document: JSON types only.

    Returns:
        UTF-8 with an indent of one space and a trailing newline.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
        TypeError: Something that is no JSON type.
    """
    text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def decode_json(uri: str, data: bytes) -> Any:
    """The document in `data`; StoreError, naming `uri`, where that is not strict JSON in UTF-8."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise StoreError(f"{uri}: not valid JSON ({reason}); restore or recreate the file") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
