"""Any folder or prefix of images: every file is taken, and the caller says what they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from uniad_ray.archive.layout_names import Label, LayoutName, Split
from uniad_ray.archive.layouts.base import ImagePlace, Layout


@dataclass(frozen=True)
class FolderLayout(Layout):
    """A plain folder, of any depth.

    Attributes:
        split: Split of every image.
        label: Label of every image; None where unknown.
    """

    name: ClassVar[LayoutName] = "folder"
    where: ClassVar[str] = "the folder"
    signature: ClassVar[re.Pattern[str]] = re.compile("")

    split: Split = "archive"
    label: Label | None = None

    def place(self, path: str) -> ImagePlace:  # noqa: ARG002 - every path is an image here
        """Takes every file, with a row key that follows from its URI."""
        return ImagePlace(category=None, path=None, split=self.split, label=self.label)
