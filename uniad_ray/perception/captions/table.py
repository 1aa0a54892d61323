"""Stored captions in Parquet files."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import field_validator

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import CaptionError, StoreError
from uniad_ray.perception.captions.base import MAX_CHARACTERS, Captions
from uniad_ray.perception.missing import Missing

_COLUMNS: Final = ("row_key", "prompt", "text")
_READING: Final = threading.Lock()


class CaptionTableConfig(StrictModel):
    """Options of stored captions.

    Attributes:
        kind: Stored captions.
        source: A sidecar of `uniad-ray caption`; or a Parquet file or a folder of Parquet files with the columns
            `row_key`, `prompt` and `text`. An absolute path or an `s3://` URI.
    """

    kind: Literal["table"]
    source: str

    @field_validator("source")
    @classmethod
    def _known_place(cls, source: str) -> str:
        if "://" not in source and not source.startswith(("/", "file:")):
            raise ValueError(f"{source} is relative, and workers run in other folders; give an absolute path or a URI")
        try:
            Location.parse(source)
        except StoreError as error:
            raise ValueError(str(error)) from error
        return source


class CaptionTable:
    """Looks up captions by row key and prompt; the table is read once per process, on first use."""

    def __init__(self, name: str, config: CaptionTableConfig) -> None:
        """Stores the options; reads nothing yet.

        Args:
            name: Name of the extractor, for messages.
            config: Location of the table.
        """
        self._name = name
        self._source = Location.parse(config.source)
        self.longest_side: int | None = None

    def captions(self, row_keys: Sequence[str], images: Sequence[np.ndarray], prompt: str) -> Captions:  # noqa: ARG002
        """Looks up the texts of the given rows; see `Captioner`.

        Raises:
            CaptionError: There are no captions for this prompt, or the table is corrupt.
            StoreError: The table is missing or cannot be read.
        """
        table = self._read()
        if prompt not in table.prompts:
            asked = prompt.partition("\n")[0]
            raise CaptionError(
                f"{self._name}: {self._source} has no captions for the prompt {asked!r:.80}; caption the archive with "
                "this prompt"
            )
        absent = Missing(f"{self._source} has no caption for this image")
        return [table.texts.get((key, prompt), absent) for key in row_keys]

    def lineage(self) -> dict[str, Any]:
        """The location of the table, and its digest.

        Raises:
            CaptionError: The table is corrupt.
            StoreError: The table is missing or cannot be read.
        """
        return {"kind": "table", "source": self._source.uri, "sha256": self._read().sha256}

    def _read(self) -> _Table:
        # Without the lock, two extractors in two threads would read the same table twice.
        with _READING:
            return _read_table(self._source)


class _Table(NamedTuple):
    """SHA-256 of the sorted lines `<sha256>  <path>` of the files, text by row key and prompt, and all prompts."""

    sha256: str
    texts: dict[tuple[str, str], str | Missing]
    prompts: frozenset[str]


@lru_cache(maxsize=4)
def _read_table(source: Location) -> _Table:
    files = [(source.name, source)]
    if not source.exists():
        if (source / "plan.json").exists() and not (source / "manifest.json").exists():
            raise CaptionError(f"{source} is not finished; repeat the `uniad-ray caption` command to resume it")
        # A sidecar also has files that list its files.
        folder = source / "captions" if (source / "manifest.json").exists() else source
        files = [(info.relative, info.location) for info in folder.list(suffix=".parquet")]
    if not files:
        raise CaptionError(f"no Parquet file at {source}; write the captions there, or change source")
    texts: dict[tuple[str, str], str | Missing] = {}
    lines = []
    for path, location in files:
        data = location.read_bytes()
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {path}\n")
        for row_key, prompt, text in _rows(location, data):
            if texts.setdefault((row_key, prompt), text) != text:
                raise CaptionError(f"{location}: image {row_key} has two captions for one prompt; keep one of them")
    digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    return _Table(digest, texts, frozenset(prompt for _, prompt in texts))


def _rows(location: Location, data: bytes) -> list[tuple[str, str, str | Missing]]:
    """The row key and prompt of each row of a file, with its text or the reason why there is none."""
    try:
        table = pq.read_table(pa.BufferReader(data))
        if missing := [name for name in _COLUMNS if name not in table.column_names]:
            raise CaptionError(
                f"{location} lacks the columns {', '.join(missing)}; a caption table has row_key, prompt, text"
            )
        columns = [table.column(name).cast(pa.string()) for name in _COLUMNS]
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise CaptionError(f"{location} is not a table of texts ({reason}); write it again") from error
    if any(column.null_count for column in columns[:2]):
        raise CaptionError(f"{location} has rows without row_key or prompt; complete or remove these rows")
    row_keys, prompts, texts = (column.to_pylist() for column in columns)
    usable = [True] * len(texts)
    reasons: list[str | None] = [None] * len(texts)
    if {"status", "error"} <= set(table.column_names):
        usable = [status == "ok" for status in table.column("status").to_pylist()]
        reasons = table.column("error").to_pylist()
    found = [
        text[:MAX_CHARACTERS] if is_usable and text is not None else Missing(reason or "no text is stored")
        for text, is_usable, reason in zip(texts, usable, reasons, strict=True)
    ]
    return list(zip(row_keys, prompts, found, strict=True))
