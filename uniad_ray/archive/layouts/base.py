"""What a layout is: how the paths of a data set tell images, masks and the files that describe them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from uniad_ray.archive.layout_names import LayoutName
from uniad_ray.archive.object_store import ObjectInfo

CATEGORY = r"(?:(?P<category>[^/]+)/)?"
"""Start of every path pattern: the folder of the category, absent where the source is one category."""


class ImagePlace(NamedTuple):
    """What its path, and the tables of the data set, say of an image.

    Attributes:
        category: Folder of the category; None where the source is one category.
        path: Path within the category, from which the row key follows; None where it follows from the URI.
        split: As in `SourceImage`.
        label: As in `SourceImage`.
        defect_kind: As in `SourceImage`.
        anomaly_type: As in `SourceImage`.
        mask_key: What the image has in common with its masks, within the category.
    """

    category: str | None
    path: str | None
    split: str
    label: str | None
    defect_kind: str | None = None
    anomaly_type: str | None = None
    mask_key: str | None = None


class MaskPlace(NamedTuple):
    """A ground-truth mask of the images that have its key."""

    category: str | None
    key: str


class Companion(NamedTuple):
    """A file that describes images or masks, such as a table of splits."""

    category: str | None


class Stray(NamedTuple):
    """An image that lies in its place but that the data set does not count in, and why."""

    category: str | None
    reason: str


Place = ImagePlace | MaskPlace | Companion | Stray
Companions = Sequence[tuple[str | None, ObjectInfo]]
"""Folder of the category and file, of every companion of a source."""


@dataclass(frozen=True)
class Layout(ABC):
    """One way to lay a data set out in folders.

    A layout sees one path at a time, so that a listing of any length streams past it.

    Attributes:
        name: What `--layout` calls it.
        where: The folders of its images, for messages.
        signature: Paths that no other layout has; one of them is enough to recognise the layout.
        defects: Content of `defects_config.json` by folder of the category.
        expected: Files that a table names, by path: what to say where one of them is not there.
    """

    name: ClassVar[LayoutName]
    where: ClassVar[str]
    signature: ClassVar[re.Pattern[str]]

    defects: Mapping[str | None, Any] = field(default_factory=dict)
    expected: Mapping[str, str] = field(default_factory=dict)

    @abstractmethod
    def place(self, path: str) -> Place | None:
        """Says what lies at a path relative to the source; None where the layout has no such place."""

    def with_companions(self, companions: Companions, categories: Collection[str]) -> Layout:  # noqa: ARG002
        """Reads the files that describe the images; most layouts have none.

        Args:
            companions: Every `Companion` of the source.
            categories: The folders of categories that are there.

        Returns:
            The layout with what the files say.

        Raises:
            ArchiveError: A file is damaged.
            StoreError: A file is too large or cannot be read.
        """
        return self


def stem(path: str) -> str:
    """The path without the suffix of its last segment."""
    return path.rsplit(".", 1)[0] if "." in path.rsplit("/", 1)[-1] else path
