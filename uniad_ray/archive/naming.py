"""Turns names that people choose into names that every store can keep."""

from __future__ import annotations

import hashlib


def safe_segment(name: str) -> str:
    """Turns any category name into one path segment, another one for each name.

    A name of letters, digits, `-`, `_` and `.` stays as it is; any other gets a digest behind it.
    """
    safe = "".join(character if character.isalnum() or character in "-_." else "_" for character in name)
    if safe == name and name.strip("."):
        return safe
    return f"{safe.strip('.') or 'category'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
