"""The entries of a source: files that may become image rows, their masks and tables, and rejected files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test", "archive"]
Label = Literal["normal", "anomalous"]


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One file that may become an image row.

    Attributes:
        row_key: First 32 hex digits of sha256 over the category and the path within it, both in Unicode form NFC: the
            same tree gives the same keys wherever it is stored. In a plain folder the URI takes the place of the path,
            because two folders of one category may use the same names.
        uri: URI of the file.
        size: Bytes, as listed.
        category: Product or view.
        split: Part of the data set; `archive` if the source has no splits.
        label: `normal`, `anomalous`, or None if unknown.
        defect_kind: Name of the defect, several joined by `+`; or None.
        anomaly_type: `logical` or `structural`; None if the source does not distinguish them.
        mask_uris: Ground-truth files of the image, sorted.
        version: What the store says of the file's content, as listed.
        mask_versions: The same for each mask.
        former_key: The key in archives from before names were normalised; None if it is the same.
        metadata: Names and values of the further columns of an image manifest, in order.
        mask_classes: Colours of the masks as `#rrggbb` with the defect of each, background first with an empty name;
            empty for masks of grey values.
    """

    row_key: str
    uri: str
    size: int
    category: str
    split: str
    label: str | None
    defect_kind: str | None
    anomaly_type: str | None
    mask_uris: tuple[str, ...] = ()
    version: str = ""
    mask_versions: tuple[str, ...] = ()
    former_key: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    mask_classes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that is read with images: a mask, or a table that describes them."""

    source_uri: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejected file and the reason."""

    source_uri: str
    reason: str


def row_key(category: str, path: str) -> str:
    """Derives the stable key of an image row from its category and its path."""
    return hashlib.sha256(f"{category}\n{path}".encode()).hexdigest()[:32]


def changed_key(key: str, image_id: str) -> str:
    """The key of a row whose path already has a row with other content; the content distinguishes them.

    Args:
        key: The row key that follows from the path.
        image_id: sha256 of the encoded image, 64 hex digits.
    """
    return hashlib.sha256(f"{key}\n{image_id}".encode()).hexdigest()[:32]
