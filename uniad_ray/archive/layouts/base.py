"""The base of a layout, which tells images, masks and description files of a data set by their paths."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from uniad_ray.archive.layouts.entries import Rejected
from uniad_ray.archive.stores.location import ObjectInfo

CATEGORY = r"(?:(?P<category>[^/]+)/)?"
"""Prefix of every path pattern: the category folder, absent if the source is a single category."""
TELLING_CATEGORY = r"(?:(?!(?i:train|val|valid|validation|test|test_public|ground_truth)/)[^/]+/)?"
"""The same in signatures. A category with the name of a split or of the masks would fit several data sets."""


class ImagePlace(NamedTuple):
    """Properties of an image according to its path and the tables of the data set.

    Attributes:
        category: Folder of the category; None if the source is a single category.
        path: Path within the category, which determines the row key; None if the URI determines it.
        split: As in `SourceImage`.
        label: As in `SourceImage`.
        defect_kind: As in `SourceImage`.
        anomaly_type: As in `SourceImage`.
        mask_key: Key within the category that the image shares with its masks.
    """

    category: str | None
    path: str | None
    split: str
    label: str | None
    defect_kind: str | None = None
    anomaly_type: str | None = None
    mask_key: str | None = None


class MaskPlace(NamedTuple):
    """A ground-truth mask for the images with the same key."""

    category: str | None
    key: str


class Companion(NamedTuple):
    """A file that describes images or masks, such as a table of splits."""

    category: str | None


class Stray(NamedTuple):
    """An image in a valid place that the data set does not include, and the reason."""

    category: str | None
    reason: str


Place = ImagePlace | MaskPlace | Companion | Stray
Companions = Sequence[tuple[str | None, ObjectInfo]]
"""Category folder and file of each companion of a source."""


@dataclass(frozen=True)
class Layout(ABC):
    """A folder structure of a data set.

    A layout sees one path at a time, so a listing of any length can be streamed.

    Attributes:
        name: Its name in `--layout`, and the name of its file.
        where: Folders of its images, for messages.
        signature: Paths that only this layout has; one of them identifies the layout.
        defects: Usable entries of `defects_config.json` by category folder.
        expected: Files named in a table, by path, with the message for a missing file.
        rejected: Files that describe images but cannot be used, whole or in part.
    """

    name: ClassVar[str]
    where: ClassVar[str]
    signature: ClassVar[re.Pattern[str]]

    defects: Mapping[str | None, Any] = field(default_factory=dict)
    expected: Mapping[str, str] = field(default_factory=dict)
    rejected: tuple[Rejected, ...] = ()

    @abstractmethod
    def place(self, path: str) -> Place | None:
        """Classifies a path relative to the source, in Unicode form NFC; None if the layout has no such place."""

    def with_companions(self, companions: Companions, categories: Collection[str]) -> Layout:  # noqa: ARG002
        """Reads the files that describe the images; most layouts have none.

        Args:
            companions: All `Companion` files of the source.
            categories: Category folders of the source.

        Returns:
            The layout with the contents of these files.

        Raises:
            ArchiveError: A file is corrupt.
            StoreError: A file is too large or cannot be read.
        """
        return self


def stem(path: str) -> str:
    """The path without the suffix of its last segment."""
    return path.rsplit(".", 1)[0] if "." in path.rsplit("/", 1)[-1] else path
