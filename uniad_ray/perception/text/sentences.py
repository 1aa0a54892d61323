"""Sentence splitting."""

from __future__ import annotations

import re
from typing import Final

_END: Final = re.compile(r"(?<=[.!?;])\s+|\n+")


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, in lower case and without end punctuation."""
    parts = (part.strip().rstrip(".!?;").strip().lower() for part in _END.split(text))
    return [part for part in parts if part]
