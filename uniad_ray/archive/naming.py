"""Turns user-chosen names into names that are valid in every store."""

from __future__ import annotations

import hashlib


def safe_segment(name: str) -> str:
    """Turns any category name into one path segment; different names give different segments.

    A name of letters, digits, `-`, `_` and `.` is unchanged. Any other name is sanitised and gets a digest suffix.
    """
    safe = "".join(character if character.isalnum() or character in "-_." else "_" for character in name)
    if safe == name and name.strip("."):
        return safe
    return f"{safe.strip('.') or 'category'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
