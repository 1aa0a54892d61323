"""Merge the review marks of several runs on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.reviews import Mark, read_marks

NO_MARKS: Final[Mapping[str, Mark]] = MappingProxyType({})


def marks_of(readers: Iterable[RunReader]) -> dict[str, Mark]:
    """Merge the marks of several runs on one archive, by row key.

    A label belongs to the image, not to a run, so the latest mark of an image wins.

    Raises:
        ArchiveError: A file of marks is corrupt.
        StoreError: The store cannot be read.
    """
    found: dict[str, Mark] = {}
    for reader in readers:
        for key, mark in read_marks(reader.location).items():
            if key not in found or found[key].marked_at < mark.marked_at:
                found[key] = mark
    return found
