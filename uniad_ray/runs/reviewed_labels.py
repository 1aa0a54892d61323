"""The marks that count where several runs have scored the same images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.reviews import Mark, read_marks

NO_MARKS: Final[Mapping[str, Mark]] = MappingProxyType({})


def marks_of(readers: Iterable[RunReader]) -> dict[str, Mark]:
    """The marks on the images of an archive that one or more runs have scored, by row key.

    What an image is does not depend on the run that a reviewer looked at: of marks in several runs the latest counts.

    Raises:
        ArchiveError: A file of marks is damaged.
        StoreError: The store cannot be read.
    """
    found: dict[str, Mark] = {}
    for reader in readers:
        for key, mark in read_marks(reader.location).items():
            if key not in found or found[key].marked_at < mark.marked_at:
                found[key] = mark
    return found
