"""Read the known defects of a category: labelled images that a fit may use to select experts, never to learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from uniad_ray.archive.images import DEFAULT_LIMITS, decode_image
from uniad_ray.archive.layouts.names import hidden_reason, suffix_reason
from uniad_ray.archive.manifest import ArchiveManifest, chunks
from uniad_ray.archive.normal_rows import read_rows
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import ArchiveError, ImageError, ObjectTooLargeError

KNOWN: Final = "known"
"""Prefix of the families of known defects: `known_structural`, `known_logical`, and `known` if the type is unknown."""
_MOST_KNOWN: Final = 64
_TYPES: Final = ("structural", "logical")


@dataclass(frozen=True)
class KnownDefect:
    """An image with a known defect.

    Attributes:
        row_key: Its key.
        image: uint8, shape (H, W, 3), RGB, at the image size of the category.
        anomaly_type: `structural`, `logical`, or None if unknown.
        file: The encoded image, or its place; None if only the pixels are known.
    """

    row_key: str
    image: np.ndarray
    anomaly_type: str | None
    file: bytes | Location | None = None

    @property
    def family(self) -> str:
        """Family for the expert selection."""
        return f"{KNOWN}_{self.anomaly_type}" if self.anomaly_type else KNOWN


@dataclass
class KnownDefects:
    """The known defects of a category: at most 64 of those given, drawn by hash.

    Attributes:
        defects: The images.
        skipped: Reason by URI for images that could not be decoded.
    """

    defects: list[KnownDefect] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of defects."""
        return len(self.defects)

    @classmethod
    def read(
        cls,
        archive: Location,
        manifest: ArchiveManifest,
        category: str,
        image_size: tuple[int, int],
        folder: Location | None = None,
        categories: Collection[str] = (),
        value_range: ValueRange | None = None,
    ) -> KnownDefects:
        """Read the anomalous images of the split `validation`, and those of a folder.

        Images of the split `test` are never read.

        Args:
            archive: The archive.
            manifest: Its manifest.
            category: Category.
            image_size: Height and width of the decoded images, pixels.
            folder: Folder with further images: those of a category in a folder with its name, or all in the folder if
                only one category is fitted. A folder named `structural` or `logical`, or with such a beginning, gives
                the type.
            categories: All categories that are fitted.
            value_range: As in `decode_image`.

        Raises:
            ArchiveError: The folder has no image of this category.
        """
        found = cls()
        places = sorted(
            [*_validation_rows(archive, manifest, category), *_files(folder, category, categories)],
            key=lambda place: hashlib.sha256(place[0].encode()).digest(),
        )
        for row_key, uri, content, anomaly_type in places:
            if len(found.defects) == _MOST_KNOWN:
                break
            try:
                image = decode_image(_content(content), image_size, value_range=value_range)
            except ImageError as error:
                found.skipped[uri] = f"{error.kind}: {error}"
            except ObjectTooLargeError as error:
                found.skipped[uri] = str(error)
            else:
                found.defects.append(KnownDefect(row_key, image, anomaly_type, content))
        return found


class OriginalsOfDefects(Mapping[str, bytes]):
    """Encoded images of known defects by row key, read when they are needed."""

    def __init__(self, defects: Sequence[KnownDefect]) -> None:
        """Keeps the defects; those without a file are left out."""
        self._files = {one.row_key: one.file for one in defects if one.file is not None}

    def __getitem__(self, row_key: str) -> bytes:
        """The encoded image of a defect.

        Raises:
            KeyError: There is no such defect, or it has no file.
            StoreError: The file cannot be read.
        """
        return _content(self._files[row_key])

    def __iter__(self) -> Iterator[str]:
        """The keys of the defects with a file."""
        return iter(self._files)

    def __len__(self) -> int:
        """Number of defects with a file."""
        return len(self._files)


Place = tuple[str, str, bytes | Location, str | None]
"""Row key, URI, content or its place, and type of a known defect."""


def _content(place: bytes | Location) -> bytes:
    return place if isinstance(place, bytes) else place.read_bytes(max_bytes=DEFAULT_LIMITS.max_bytes)


def _validation_rows(archive: Location, manifest: ArchiveManifest, category: str) -> Iterator[Place]:
    own = chunks(manifest, categories=[category], splits=("validation",))
    columns = ("row_key", "source_uri", "image", "anomaly_type", "label")
    for (row_key, uri, data, anomaly_type, label), _, _ in read_rows(archive, own, columns):
        if label == "anomalous":
            yield row_key, uri, data, anomaly_type


def _files(folder: Location | None, category: str, categories: Collection[str]) -> Iterator[Place]:
    if folder is None:
        return
    count = 0
    for info in folder.list():
        first, *rest = info.relative.split("/")
        if len(categories) > 1 and not (rest and first == category):
            continue
        if hidden_reason(info.relative) is None and suffix_reason(info.relative) is None and not info.problem:
            count += 1
            parents = [part.lower() for part in info.relative.split("/")[:-1]]
            anomaly_type = next((kind for part in parents for kind in _TYPES if part.startswith(kind)), None)
            key = hashlib.sha256(info.location.uri.encode()).hexdigest()[:32]
            yield key, info.location.uri, info.location, anomaly_type
    if not count:
        where = f"{folder}/{category}" if len(categories) > 1 else str(folder)
        raise ArchiveError(f"{where}: no images of known defects; give a folder with images of {category!r}")
