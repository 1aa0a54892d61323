"""Reads the lines of an image manifest: JSON lines or CSV. A bad line affects no other."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from uniad_ray.archive.naming import normalised
from uniad_ray.archive.stores.location import Location, is_utf8
from uniad_ray.errors import ArchiveError

MAX_MANIFEST_BYTES = 256 << 20
"""Maximum size of a manifest, some 1,000,000 lines; manifests are held in memory."""
_DELIMITERS = (",", ";", "\t")
_REQUIRED = "path"
_ADVICE = "write one JSON object a line with `path` or `source-ref`, or CSV whose first line names the column `path`"


@dataclass(frozen=True)
class Line:
    """A line of a manifest.

    Attributes:
        number: Line number, from 1.
        values: Values by column, names and texts in Unicode form NFC; empty if the line is bad.
        problem: What is wrong with the line; None if it can be read.
    """

    number: int
    values: dict[str, Any]
    problem: str | None = None


def read_lines(manifest: Location) -> Iterator[Line]:
    """Reads a manifest; empty lines are skipped.

    A first line that begins with `{` makes it JSON lines. Otherwise it is CSV with `,`, `;` or a tab between the cells.
    No cell contains a line break, so that an open quote costs one line only.

    Raises:
        ArchiveError: The manifest is empty, or its first line is neither an object nor a header with `path`.
        StoreError: It is larger than `MAX_MANIFEST_BYTES`, or cannot be read.
    """
    data = manifest.read_bytes(max_bytes=MAX_MANIFEST_BYTES).removeprefix(b"\xef\xbb\xbf")
    lines = ((number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip())
    first = next(lines, None)
    if first is None:
        raise ArchiveError(f"{manifest}: the manifest is empty; {_ADVICE}")
    if first[1].lstrip().startswith(b"{"):
        yield _json_line(*first)
        yield from (_json_line(number, line) for number, line in lines)
        return
    header, delimiter = _header(manifest, first[1])
    yield from (_csv_line(number, line, header, delimiter) for number, line in lines)


def _header(manifest: Location, line: bytes) -> tuple[list[str], str]:
    """Columns of a CSV manifest, and its delimiter."""
    try:
        text = normalised(line.decode())
    except UnicodeDecodeError as error:
        raise ArchiveError(f"{manifest}: not UTF-8 text; save it as UTF-8 and try again") from error
    for delimiter in _DELIMITERS:
        try:
            names = [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
        except csv.Error:
            # A cell that is too long, as of a JSON array on one line.
            continue
        if _REQUIRED in [name.lower() for name in names]:
            if doubled := sorted({name for name in names if name and names.count(name) > 1}):
                raise ArchiveError(f"{manifest}: column {doubled[0]!r} occurs twice; rename one of them")
            return names, delimiter
    raise ArchiveError(f"{manifest}: no image manifest; {_ADVICE}")


def _json_line(number: int, line: bytes) -> Line:
    try:
        values = json.loads(normalised(line.decode()))
    except UnicodeDecodeError:
        return Line(number, {}, "not UTF-8 text")
    except (ValueError, RecursionError) as error:
        return Line(number, {}, f"not valid JSON ({error})")
    if not isinstance(values, dict):
        return Line(number, {}, "not a JSON object")
    if not is_utf8(json.dumps(values, ensure_ascii=False)):
        return Line(number, {}, "not Unicode text")
    return Line(number, values)


def _csv_line(number: int, line: bytes, header: list[str], delimiter: str) -> Line:
    try:
        cells = next(csv.reader([normalised(line.decode())], delimiter=delimiter, strict=True))
    except UnicodeDecodeError:
        return Line(number, {}, "not UTF-8 text")
    except csv.Error as error:
        return Line(number, {}, f"not valid CSV ({error})")
    if len(cells) != len(header):
        return Line(number, {}, f"{len(cells)} cells for {len(header)} columns")
    return Line(number, {name: cell.strip() for name, cell in zip(header, cells, strict=True) if name})
