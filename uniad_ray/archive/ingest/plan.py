"""The plan of an ingest: the files that are left to read, divided into shards."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uniad_ray.archive.ingest.known import Contents, KnownFiles
from uniad_ray.archive.layouts import Attachment, Rejected, SourceImage
from uniad_ray.archive.naming import dataset_segment
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import ShardLimits, open_parquet
from uniad_ray.archive.stores.location import Location

_SAME_NAME = "another file has the same category and path, in another Unicode form; rename one of them"
_Planned = tuple[SourceImage, Contents]


@dataclass(frozen=True)
class IngestPlan:
    """The files that an ingest will read.

    Attributes:
        ingest_id: Digest of the files to read and of what the archive holds of their paths; equal for the same content,
            whatever its versions.
        data: The plan as Parquet, schema `ingest_plan`, one row group per shard.
        shards: Paths of the shards, in row group order.
        images: Number of image files to read.
        known: Number of image files that are not read, because the archive holds their versions.
        relabelled: Number of these whose split, label or defect kind is another one in the archive.
        attached: Number of masks and tables that are read with images.
        rejected: Files rejected without reading them.
    """

    ingest_id: str
    data: bytes
    shards: tuple[str, ...]
    images: int
    known: int
    relabelled: int
    attached: int
    rejected: tuple[Rejected, ...]


def plan_ingest(
    entries: Iterable[SourceImage | Attachment | Rejected],
    *,
    limits: ShardLimits,
    known: KnownFiles | None = None,
    spellings: Mapping[str, str] = MappingProxyType({}),
) -> IngestPlan:
    """Divides what is left of a source into shards of one category each, in listing order.

    Files that are new, and files whose path is known but not their version, get separate shards: the content of the
    latter must be compared, and most have only been touched or moved.

    Args:
        entries: Files of a source, sorted by path.
        limits: Limits of a shard.
        known: The files that the archive has read.
        spellings: From `known_spellings`.

    Raises:
        ArchiveError: A shard of the archive is corrupt.
        StoreError: A shard of the archive cannot be read.
    """
    known = known or KnownFiles()
    rejected: list[Rejected] = []
    new: list[SourceImage] = []
    doubtful: list[tuple[SourceImage, tuple[int, ...]]] = []
    seen: set[str] = set()
    unchanged = relabelled = attached = 0
    for entry in entries:
        if isinstance(entry, Rejected):
            rejected.append(entry)
        elif isinstance(entry, Attachment):
            attached += 1
        elif entry.row_key in seen:
            rejected.append(Rejected(entry.uri, _SAME_NAME))
        else:
            seen.add(entry.row_key)
            image = replace(entry, category=spellings.get(entry.category, entry.category))
            rows = known.rows(image)
            if not rows:
                new.append(image)
            elif known.is_unchanged(image, rows):
                unchanged += 1
                relabelled += not known.has_labels(image, rows)
            else:
                doubtful.append((image, rows))
    contents = known.contents([rows for _, rows in doubtful])
    nothing = Contents()
    groups = [
        *_cut([(image, nothing) for image in new], limits),
        *_cut([(image, content) for (image, _), content in zip(doubtful, contents, strict=True)], limits),
    ]
    ingest_id = _ingest_id(groups, limits)
    sink = io.BytesIO()
    paths: list[str] = []
    with pq.ParquetWriter(sink, dataset_schema("ingest_plan").arrow, compression="zstd") as writer:
        for members in groups:
            folder = dataset_segment(members[0][0].category)
            paths.append(f"images/{folder}/{ingest_id[:8]}-{len(paths):05d}.parquet")
            writer.write_table(_plan_table(members, paths[-1]), row_group_size=len(members))
    return IngestPlan(
        ingest_id=ingest_id,
        data=sink.getvalue(),
        shards=tuple(paths),
        images=len(new) + len(doubtful),
        known=unchanged,
        relabelled=relabelled,
        attached=attached,
        rejected=tuple(rejected),
    )


def read_planned_shard(plan: Location, row_group: int) -> list[dict[str, Any]]:
    """Reads the planned files of one shard; keys are the columns of schema `ingest_plan`."""
    with open_parquet(plan) as file:
        dataset_schema("ingest_plan").check_columns(file.schema_arrow, source=plan.uri)
        rows: list[dict[str, Any]] = file.read_row_group(row_group).to_pylist()
    return rows


def _cut(planned: list[_Planned], limits: ShardLimits) -> Iterator[list[_Planned]]:
    planned.sort(key=lambda member: (member[0].category, member[0].split, member[0].uri))
    members: list[_Planned] = []
    taken = 0
    for member in planned:
        image = member[0]
        full = len(members) >= limits.rows or taken + image.size > limits.bytes
        if members and (full or image.category != members[-1][0].category):
            yield members
            members, taken = [], 0
        members.append(member)
        taken += image.size
    if members:
        yield members


def _ingest_id(groups: Iterable[Sequence[_Planned]], limits: ShardLimits) -> str:
    """Names an ingest by what it adds to the archive.

    Versions are left out: they depend on when and where files were copied, and an archive should not. What the archive
    holds of a path is part of the name, so an ingest that added rows never has the name of a later one.
    """
    digest = hashlib.sha256(repr(limits).encode())
    for image, content in (member for members in groups for member in members):
        digest.update(f"{image.row_key} {image.size}\n".encode())
        for known in (*content.images, *content.masks):
            digest.update(f"{known}\n".encode())
    return digest.hexdigest()[:16]


def _plan_table(members: Sequence[_Planned], shard: str) -> pa.Table:
    images = [image for image, _ in members]
    return dataset_schema("ingest_plan").table(
        {
            "row_key": [image.row_key for image in images],
            "source_uri": [image.uri for image in images],
            "source_bytes": [image.size for image in images],
            "source_version": [image.version for image in images],
            "category": [image.category for image in images],
            "split": [image.split for image in images],
            "label": [image.label for image in images],
            "defect_kind": [image.defect_kind for image in images],
            "anomaly_type": [image.anomaly_type for image in images],
            "mask_uris": [list(image.mask_uris) for image in images],
            "mask_versions": [list(image.mask_versions) for image in images],
            "known_images": [list(content.images) for _, content in members],
            "known_masks": [list(content.masks) for _, content in members],
            "shard": [shard] * len(members),
            "mask_classes": [
                [{"color": color, "name": name} for color, name in image.mask_classes] for image in images
            ],
            "metadata": [[{"name": name, "value": value} for name, value in image.metadata] for image in images],
        }
    )
