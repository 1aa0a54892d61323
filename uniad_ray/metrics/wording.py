"""Formats counts in the same way for notes, reports and the terminal."""

from __future__ import annotations


def count(number: int, unit: str = "") -> str:
    """`12,345`, or `12,345 images`, `1 image` with the unit `image`."""
    if not unit:
        return f"{number:,}"
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"
