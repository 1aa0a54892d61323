"""Turns user-chosen names into names that are valid in every store, one Unicode form, and printable text."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Iterator

_HIDDEN = ("_", ".")
_MAX_FORMS = 64
_MAX_BYTES = 240
"""Longest name before its digest; file systems allow 255 bytes."""


def normalised(text: str) -> str:
    """The composed Unicode form (NFC) of a name: the same letters are the same text, whoever wrote the name.

    Macs, and some settings of SMB and rsync, write decomposed names: `ä` as `a` and a combining mark.
    """
    return unicodedata.normalize("NFC", text)


def unicode_forms(path: str) -> Iterator[str]:
    """Spellings of a path in composed and decomposed forms, the given one first; only this one if it is ASCII.

    Each segment has one form throughout, but the segments may differ: a folder of one system holds files of another.

    Args:
        path: Path or URI with `/` between its segments; of more than `_MAX_FORMS` spellings, the first are given.
    """
    segments = [
        dict.fromkeys((segment, normalised(segment), unicodedata.normalize("NFD", segment)))
        for segment in path.split("/")
    ]
    for spelling in itertools.islice(itertools.product(*segments), _MAX_FORMS):
        yield "/".join(spelling)


def printable(path: str) -> str:
    r"""A path with each byte that is not UTF-8 written as `\xdf`, for messages and tables."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def safe_segment(name: str) -> str:
    """Turns any category name into one path segment; different names give different segments.

    A name of letters, digits, `-`, `_` and `.` is unchanged. Any other name is sanitised and gets a digest suffix.
    """
    safe = _sanitised(name)
    if safe == name and name.strip("."):
        return safe
    return _with_digest(safe.strip("."), name)


def dataset_segment(name: str) -> str:
    """Turns any category name into the name of a folder of Parquet files; as `safe_segment`, but never hidden.

    Arrow, pandas and Spark skip folders whose name begins with `_` or `.`, so such names are sanitised, too.
    """
    safe = _sanitised(name)
    if name and safe == name and not name.startswith(_HIDDEN) and len(name.encode()) <= _MAX_BYTES:
        return safe
    return _with_digest(safe.lstrip("._").rstrip("."), name)


def _sanitised(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in name)


def _with_digest(safe: str, name: str) -> str:
    kept = safe.encode()[:_MAX_BYTES].decode(errors="ignore")
    return f"{kept or 'category'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
