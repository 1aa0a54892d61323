"""Tables and numbers for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

LISTED = 10
"""Maximum number of rejected files and the like in text; `--json` gives all."""


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligns a table: numbers to the right, words to the left."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(header), *cells]) for column in range(len(header))]
    numeric = [
        bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))
    ]

    def line(values: Sequence[str]) -> str:
        parts = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *(line(row) for row in cells)])


def percent(value: float | None) -> str:
    """Formats a fraction between 0 and 1 in per cent, with one decimal."""
    return "-" if value is None else f"{100 * value:.1f}"


def mib(size: int) -> str:
    """Formats a size in bytes as `1.2 MiB`."""
    return f"{size / 2**20:.1f} MiB"
