"""Any folder or prefix of images: every file is used, and the caller gives split and label."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from uniad_ray.archive.layouts.base import ImagePlace, Layout
from uniad_ray.archive.layouts.entries import Label, Split


@dataclass(frozen=True)
class FolderLayout(Layout):
    """A plain folder of any depth.

    Attributes:
        split: Split of every image.
        label: Label of every image; None if unknown.
    """

    name: ClassVar[str] = "folder"
    where: ClassVar[str] = "the folder"
    signature: ClassVar[re.Pattern[str]] = re.compile("")

    split: Split = "archive"
    label: Label | None = None

    def place(self, path: str) -> ImagePlace:  # noqa: ARG002 - every path is an image here
        """Accepts every file; its URI determines the row key."""
        return ImagePlace(category=None, path=None, split=self.split, label=self.label)
