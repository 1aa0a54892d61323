"""Images of an archive that no fit uses: recorded with a reason, and withdrawn as easily."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from uniad_ray.archive.manifest import ArchiveManifest, chunks, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_chunk, read_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError

FOLDER: Final = "exclusions"
_LISTED: Final = 5
"""Images named in a message about an ambiguous name."""


class Exclusion(StrictModel):
    """A change of the record: an image is excluded, or used again.

    Attributes:
        image_id: sha256 of the encoded image; all files with this content are meant.
        category: Category of the image.
        source_uri: URI that it was ingested from.
        is_excluded: Whether fits leave the image out; false withdraws an earlier exclusion.
        reason: Reason that the user gave.
        changed_at: UTC, ISO 8601.
    """

    image_id: str
    category: str
    source_uri: str
    is_excluded: bool
    reason: str
    changed_at: str


class ExclusionReport(StrictModel):
    """The images of an archive that no fit uses.

    Attributes:
        archive: Root of the archive.
        changed: Changes of this call.
        excluded: All exclusions in force, sorted by category and URI.
    """

    archive: str
    changed: tuple[Exclusion, ...]
    excluded: tuple[Exclusion, ...]


@dataclass(frozen=True)
class NamedImage:
    """One image row by its names; rows with the same content share their `image_id`."""

    row_key: str
    image_id: str
    category: str
    source_uri: str

    def is_named(self, name: str) -> bool:
        """Whether a name is the row's key, its sha256, its source URI, or the end of that after a slash."""
        return name in (self.row_key, self.image_id, self.source_uri) or self.source_uri.endswith(f"/{name}")


def read_exclusions(archive: Location) -> dict[tuple[str, str], Exclusion]:
    """Reads the exclusions in force, by category and sha256 of the image.

    Raises:
        ArchiveError: A file of exclusions is corrupt.
    """
    schema = dataset_schema("exclusion")
    changes = [
        Exclusion(**row)
        for info in (archive / FOLDER).list(suffix=".parquet")
        for row in read_table(schema, info.location).to_pylist()
    ]
    latest = {
        (change.category, change.image_id): change
        for change in sorted(changes, key=lambda change: (change.changed_at, change.is_excluded))
    }
    return {key: change for key, change in latest.items() if change.is_excluded}


def exclude_images(archive: str, names: Sequence[str], *, reason: str) -> ExclusionReport:
    """Records that no fit uses some images. They stay in the archive and are scored as before.

    Args:
        archive: Root of the archive.
        names: Names of images, as `NamedImage.is_named` compares them.
        reason: Why the images are left out.

    Raises:
        ArchiveError: There is no such image, a name fits several, or the reason is empty.
    """
    if not reason.strip():
        raise ArchiveError("the reason is empty; say with --reason why fits leave the image out")
    root = Location.parse(archive)
    found = find_images(root, read_manifest(root), names)
    return _change(root, found.values(), is_excluded=True, reason=reason)


def include_images(archive: str, names: Sequence[str], *, reason: str = "") -> ExclusionReport:
    """Withdraws exclusions, so that the next fit uses the images again.

    Args:
        archive: Root of the archive.
        names: Names of excluded images.
        reason: Why the exclusions are withdrawn.

    Raises:
        ArchiveError: A name is not that of an excluded image, or fits several.
    """
    root = Location.parse(archive)
    found = find_images(root, read_manifest(root), names)
    known = read_exclusions(root)
    for name, image in found.items():
        if (image.category, image.image_id) not in known:
            raise ArchiveError(f"{root}: {name} is not excluded; list the exclusions with `uniad-ray archive list`")
    return _change(root, found.values(), is_excluded=False, reason=reason)


def list_exclusions(archive: str) -> ExclusionReport:
    """Lists the exclusions in force.

    Raises:
        ArchiveError: There is no archive, or a file of exclusions is corrupt.
    """
    root = Location.parse(archive)
    read_manifest(root)
    return _report(root, ())


def find_images(
    archive: Location,
    manifest: ArchiveManifest,
    names: Sequence[str],
    categories: Iterable[str] | None = None,
    *,
    may_miss: bool = False,
) -> Mapping[str, NamedImage]:
    """Finds the image of each name.

    Args:
        archive: Root of the archive.
        manifest: Its manifest.
        names: Names of images, as `NamedImage.is_named` compares them.
        categories: Categories to search; None searches all.
        may_miss: Whether names without an image are left out; otherwise they are an error.

    Raises:
        ArchiveError: There is no such image, or a name fits several with different content.
    """
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    fitting: dict[str, dict[tuple[str, str], NamedImage]] = {name: {} for name in wanted}
    for chunk in chunks(manifest, categories=categories):
        table = read_chunk(archive, chunk, columns=["row_key", "image_id", "source_uri"])
        for row in table.to_pylist():
            image = NamedImage(row["row_key"], row["image_id"], chunk.category, row["source_uri"])
            for name in wanted:
                if image.is_named(name):
                    fitting[name].setdefault((image.category, image.image_id), image)
    for name, images in fitting.items():
        if not images and not may_miss:
            raise ArchiveError(
                f"{archive}: no image {name}; give its source URI, or the end of it such as good/007.png"
            )
        if len(images) > 1:
            found = sorted(f"{image.source_uri} (sha256 {image.image_id})" for image in images.values())
            further = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
            raise ArchiveError(
                f"{archive}: {name} fits {len(found)} images: {', '.join(found[:_LISTED])}{further}; give more of the "
                "path, or the sha256"
            )
    return {name: next(iter(images.values())) for name, images in fitting.items() if images}


def _change(root: Location, images: Iterable[NamedImage], *, is_excluded: bool, reason: str) -> ExclusionReport:
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    changes = [
        Exclusion(
            image_id=image.image_id,
            category=image.category,
            source_uri=image.source_uri,
            is_excluded=is_excluded,
            reason=reason.strip(),
            changed_at=now,
        )
        for image in images
    ]
    if changes:
        schema = dataset_schema("exclusion")
        table = schema.table({name: [getattr(change, name) for change in changes] for name in schema.arrow.names})
        # Users may write at the same time. Unique names avoid conflicts; readers sort by time.
        name = f"{now.replace(':', '')}-{uuid.uuid4().hex[:12]}.parquet"
        (root / FOLDER / name).write_bytes(encode_table(schema, table))
    return _report(root, changes)


def _report(root: Location, changes: Sequence[Exclusion]) -> ExclusionReport:
    known = sorted(read_exclusions(root).values(), key=lambda change: (change.category, change.source_uri))
    return ExclusionReport(archive=root.uri, changed=tuple(changes), excluded=tuple(known))
