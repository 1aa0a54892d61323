"""Reads the small CSV tables of data sets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from uniad_ray.archive.naming import normalised
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError

MAX_TABLE_BYTES = 16 << 20
"""Maximum size of a table, some 200,000 rows; tables are held in memory."""


def read_rows(location: Location, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Reads a CSV table with a header, in UTF-8; its cells are normalised as the paths of files are.

    Args:
        location: The table.
        columns: Required columns; others are allowed.

    Yields:
        Line number of each row, from 1, and its cells by column; empty lines are skipped.

    Raises:
        ArchiveError: The table is not UTF-8, a column is missing, or a row does not fit the header.
        StoreError: The table is larger than `MAX_TABLE_BYTES`, or cannot be read.
    """
    try:
        text = normalised(location.read_bytes(max_bytes=MAX_TABLE_BYTES).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ArchiveError(f"{location}: not UTF-8 text ({error.reason}); save it as UTF-8 and try again") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if missing := [name for name in columns if name not in header]:
            raise ArchiveError(
                f"{location}: missing column {', '.join(missing)}; the first line must be {','.join(columns)}"
            )
        for cells in reader:
            if cells and len(cells) != len(header):
                raise ArchiveError(
                    f"{location}, line {reader.line_num}: {len(cells)} cells for {len(header)} columns; fix the line"
                )
            if cells:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ArchiveError(f"{location}, line {reader.line_num}: not valid CSV ({error}); fix the line") from error
