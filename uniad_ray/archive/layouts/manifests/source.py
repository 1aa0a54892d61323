"""An image manifest as a source of an ingest."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from uniad_ray.archive.layouts.entries import Attachment, Label, Rejected, SourceImage, Split, row_key
from uniad_ray.archive.layouts.manifests.lines import Line, read_lines
from uniad_ray.archive.layouts.manifests.listed import LineError, ListedImage, listed_image
from uniad_ray.archive.layouts.manifests.lookout import IMAGE, lookout_image
from uniad_ray.archive.layouts.names import suffix_reason
from uniad_ray.archive.naming import normalised, printable, unicode_forms
from uniad_ray.archive.stores.location import Location, ObjectInfo, is_utf8
from uniad_ray.errors import ArchiveError, BucketNotFoundError, ObjectDeniedError, ObjectNotFoundError, StoreError

_THREADS = 16
_LINES = 1024
_Found = SourceImage | Attachment | Rejected


@dataclass(frozen=True)
class ManifestSource:
    """The images that a manifest lists.

    Attributes:
        root: Where the relative paths of the manifest start.
        manifest: The manifest.
        category: Category of lines without one; of the others, only those of this category are read.
        split: Split of lines without one.
        label: Label of lines without one.
    """

    root: Location
    manifest: Location
    category: str | None = None
    split: Split = "archive"
    label: Label | None = None
    layout_name: ClassVar[str] = "manifest"

    @property
    def uri(self) -> str:
        """URI of the manifest, which names the source in the records of the archive."""
        return self.manifest.uri

    @property
    def defects(self) -> dict[str, Any]:
        """A manifest has no `defects_config.json`."""
        return {}

    def entries(self) -> Iterator[_Found]:
        """Streams the images in the order of the manifest, each followed by its masks.

        A line that cannot be read, and one whose image is missing, is rejected; the other lines are not affected.

        Raises:
            ArchiveError: The manifest is empty, or is none.
            StoreError: A store fails.
        """
        seen: dict[str, int] = {}
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="manifest") as pool:
            lines = read_lines(self.manifest)
            # In parts, since `map` reads all its input at once and keeps every result until it is taken.
            parts = iter(lambda: list(islice(lines, _LINES)), [])
            for line, found in (read for part in parts for read in pool.map(self._read, part)):
                image = next((entry for entry in found if isinstance(entry, SourceImage)), None)
                if image is not None and image.row_key in seen:
                    yield self._rejected(line.number, f"the same image and category as line {seen[image.row_key]}")
                    continue
                if image is not None:
                    seen[image.row_key] = line.number
                yield from found

    def _read(self, line: Line) -> tuple[Line, list[_Found]]:
        if line.problem is not None:
            return line, [self._rejected(line.number, line.problem)]
        try:
            listed = lookout_image(line.values) if IMAGE in line.values else listed_image(line.values)
            if self.category is not None and listed.category not in (None, normalised(self.category)):
                return line, []
            return line, list(self._entries_of(listed, line.number))
        except (LineError, BucketNotFoundError, ObjectDeniedError, ObjectNotFoundError) as error:
            return line, [self._rejected(line.number, str(error))]

    def _entries_of(self, listed: ListedImage, number: int) -> Iterator[_Found]:
        if reason := suffix_reason(listed.path):
            raise LineError(reason)
        info = self._find(listed.path)
        location = info.location
        category = listed.category or normalised(self.category or self.root.name)
        label = listed.label or self.label
        kept = [self._find_mask(mask) for mask in listed.masks] if label == "anomalous" else []
        yield SourceImage(
            row_key=row_key(category, normalised(location.uri)),
            uri=location.uri,
            size=info.size,
            category=category,
            split=listed.split or self.split,
            label=label,
            defect_kind=listed.defect_kind,
            anomaly_type=listed.anomaly_type,
            mask_uris=tuple(mask.uri for mask, _ in kept),
            version=info.version,
            mask_versions=tuple(version for _, version in kept),
            metadata=listed.metadata,
            mask_classes=listed.mask_classes if kept else (),
        )
        yield from (Attachment(mask.uri) for mask, _ in kept)
        if listed.masks and not kept:
            yield self._rejected(number, f"mask of an image that is {label or 'unlabelled'}; the image is taken")

    def _find(self, path: str) -> ObjectInfo:
        """The file of a path, also if its name has another Unicode form than the manifest.

        Raises:
            ObjectNotFoundError: There is none.
        """
        missing = None
        for spelling in unicode_forms(path):
            try:
                return self._location(spelling).info()
            except ObjectNotFoundError as error:
                missing = missing or error
        raise missing or ObjectNotFoundError(f"{path} does not exist; check the path")

    def _find_mask(self, path: str) -> tuple[Location, str]:
        """A mask and its version; empty if it cannot be read, which the ingest then reports with its image."""
        try:
            info = self._find(path)
        except (ObjectDeniedError, ObjectNotFoundError):
            return self._location(path), ""
        return info.location, info.version

    def _location(self, path: str) -> Location:
        if "://" in path or path.startswith("/"):
            location = _parsed(path)
        else:
            try:
                location = self.root / path.removeprefix("./")
            except StoreError as error:
                raise LineError(str(error)) from error
        return location

    def _rejected(self, number: int, reason: str) -> Rejected:
        return Rejected(f"{self.manifest}:{number}", printable(reason))


def open_manifest(
    root: Location,
    manifest: Location,
    *,
    category: str | None = None,
    split: Split | None = None,
    label: Label | None = None,
) -> ManifestSource:
    """Opens an image manifest as a source; nothing is read yet.

    Args:
        root: Where the relative paths of the manifest start.
        manifest: JSON lines, CSV, or a manifest of Lookout for Vision.
        category: Category of lines without one; of the others, only those of this category are read. Default is the
            name of `root`.
        split: Split of lines without one; default `archive`.
        label: Label of lines without one; default unknown.

    Raises:
        ArchiveError: A path or the category is not Unicode text.
    """
    if not all(map(is_utf8, (root.uri, manifest.uri, category or ""))):
        raise ArchiveError(f"{printable(manifest.uri)}: the path or the category is not UTF-8 text; rename it")
    return ManifestSource(root, manifest, category, split or "archive", label)


def _parsed(path: str) -> Location:
    try:
        return Location.parse(path)
    except StoreError as error:
        raise LineError(str(error)) from error
