"""An ingest without Ray: plans the shards of a source, then builds each shard from its files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from uniad_ray.archive.images import ImageLimits, decode_mask, probe_image
from uniad_ray.archive.layouts import Rejected, SourceImage, defect_kinds_by_value
from uniad_ray.archive.manifest import RejectedFile, Shard
from uniad_ray.archive.naming import safe_segment
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import ShardLimits, encode_shard, open_parquet
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError, ImageError, ObjectNotFoundError


class ShardRecord(StrictModel):
    """Result of one planned shard. If the record exists, the shard is complete.

    Attributes:
        shard: Its manifest entry; None if none of its files was an image.
        rejected: Files of the plan that were rejected.
        read_bytes: Number of encoded bytes read.
    """

    shard: Shard | None
    rejected: tuple[RejectedFile, ...] = Field(default=())
    read_bytes: int


@dataclass(frozen=True)
class IngestPlan:
    """The files that an ingest will read.

    Attributes:
        ingest_id: Digest of the listing; equal for the same source and listing.
        data: The plan as Parquet, schema `ingest_plan`, one row group per shard.
        shards: Paths of the shards, in row group order.
        images: Number of files to read.
        rejected: Files rejected by their name alone.
    """

    ingest_id: str
    data: bytes
    shards: tuple[str, ...]
    images: int
    rejected: tuple[Rejected, ...]


def plan_ingest(
    entries: Iterable[SourceImage | Rejected], *, limits: ShardLimits, known_rows: Mapping[str, int] | None = None
) -> IngestPlan:
    """Divides a source into shards of one category each, in listing order.

    Args:
        entries: Files of a source, sorted by path.
        limits: Limits of a shard.
        known_rows: Size in bytes of each row already in the archive, by row key. These files are skipped. A file whose
            size has changed is rejected, because an archive never changes a row.

    Raises:
        ArchiveError: Two files of the source have the same row key.
    """
    known = known_rows or {}
    rejected: list[Rejected] = []
    images: list[SourceImage] = []
    seen: set[str] = set()
    for entry in entries:
        if isinstance(entry, Rejected):
            rejected.append(entry)
        elif entry.row_key in seen:
            raise ArchiveError(
                f"{entry.uri}: a second file has the same category and path; ingest the two trees into two archives"
            )
        elif entry.row_key not in known:
            seen.add(entry.row_key)
            images.append(entry)
        elif known[entry.row_key] != entry.size:
            rejected.append(Rejected(entry.uri, "changed since it was ingested; ingest it into a new archive"))
    images.sort(key=lambda image: (image.category, image.split, image.uri))
    digest = hashlib.sha256(repr(limits).encode())
    for image in images:
        digest.update(f"{image.row_key} {image.size}\n".encode())
    for refused in rejected:
        digest.update(f"{refused.source_uri}\n".encode())
    ingest_id = digest.hexdigest()[:16]
    schema = dataset_schema("ingest_plan")
    sink = io.BytesIO()
    paths: list[str] = []
    with pq.ParquetWriter(sink, schema.arrow, compression="zstd") as writer:
        for members in _cut(images, limits):
            path = f"images/{safe_segment(members[0].category)}/{ingest_id[:8]}-{len(paths):05d}.parquet"
            writer.write_table(_plan_table(members, path), row_group_size=len(members))
            paths.append(path)
    return IngestPlan(ingest_id, sink.getvalue(), tuple(paths), len(images), tuple(rejected))


def read_planned_shard(plan: Location, row_group: int) -> list[dict[str, Any]]:
    """Reads the planned files of one shard; keys are the columns of schema `ingest_plan`."""
    with open_parquet(plan) as file:
        dataset_schema("ingest_plan").check_columns(file.schema_arrow, source=plan.uri)
        rows: list[dict[str, Any]] = file.read_row_group(row_group).to_pylist()
    return rows


def build_shard(
    planned: Sequence[dict[str, Any]],
    *,
    defects: list[dict[str, Any]] | None,
    image_limits: ImageLimits,
    shard_limits: ShardLimits,
) -> tuple[bytes | None, ShardRecord]:
    """Reads the files of one planned shard and encodes them.

    A file that is missing or not an image is recorded with the reason. A store failure is an error of the job, because
    a retry may succeed.

    Args:
        planned: Rows of the plan, all of the same shard.
        defects: Content of the category's `defects_config.json`, which names defects by grey value of the mask.
        image_limits: Limits of each image file.
        shard_limits: Limits of the row groups.

    Returns:
        The shard's bytes, or None if it has no image; and the record of each file's outcome.

    Raises:
        StoreError: The store failed.
    """
    rows: list[dict[str, Any]] = []
    rejected: list[RejectedFile] = []
    read_bytes = 0
    names = defect_kinds_by_value(defects)
    for entry in planned:
        try:
            row = _read_row(entry, names, image_limits)
        except ObjectNotFoundError:
            rejected.append(RejectedFile(source_uri=entry["source_uri"], reason="deleted since the source was listed"))
        except ImageError as error:
            rejected.append(RejectedFile(source_uri=entry["source_uri"], reason=f"{error.kind}: {error}"))
        else:
            rows.append(row)
            read_bytes += len(row["image"])
    if not rows:
        return None, ShardRecord(shard=None, rejected=tuple(rejected), read_bytes=0)
    data, shard = encode_shard(planned[0]["shard"], rows, shard_limits)
    return data, ShardRecord(shard=shard, rejected=tuple(rejected), read_bytes=read_bytes)


def _read_row(entry: dict[str, Any], defect_names: dict[int, str], limits: ImageLimits) -> dict[str, Any]:
    location = Location.parse(entry["source_uri"])
    if entry["source_bytes"] > limits.max_bytes:
        raise ImageError("too_large", f"the file has {entry['source_bytes']} bytes; the limit is {limits.max_bytes}")
    data = location.read_bytes()
    info = probe_image(data, limits)
    masks = [{"source_uri": uri, "mask": Location.parse(uri).read_bytes()} for uri in entry["mask_uris"]]
    return {
        "row_key": entry["row_key"],
        "image_id": hashlib.sha256(data).hexdigest(),
        "image": data,
        "source_uri": entry["source_uri"],
        "category": entry["category"],
        "split": entry["split"],
        "label": entry["label"],
        "defect_kind": _defect_kind(entry, masks, defect_names, limits),
        "anomaly_type": entry["anomaly_type"],
        "masks": masks,
        "format": info.format,
        "width": info.width,
        "height": info.height,
        "captured_at": info.captured_at.isoformat() if info.captured_at else None,
    }


def _defect_kind(
    entry: dict[str, Any], masks: list[dict[str, Any]], defect_names: dict[int, str], limits: ImageLimits
) -> str | None:
    """Names the defect by its mask if the category has names for grey values, else by its folder."""
    folder: str | None = entry["defect_kind"]
    if not defect_names or folder is None:
        return folder
    found: set[str] = set()
    for mask in masks:
        try:
            values = np.unique(decode_mask(mask["mask"], limits))
        except ImageError as error:
            raise ImageError(error.kind, f"mask {mask['source_uri']}: {error}") from error
        found.update(defect_names[int(value)] for value in values if int(value) in defect_names)
    return "+".join(sorted(found)) or folder


def _cut(images: Sequence[SourceImage], limits: ShardLimits) -> Iterator[list[SourceImage]]:
    members: list[SourceImage] = []
    taken = 0
    for image in images:
        full = len(members) >= limits.rows or taken + image.size > limits.bytes
        if members and (full or image.category != members[-1].category):
            yield members
            members, taken = [], 0
        members.append(image)
        taken += image.size
    if members:
        yield members


def _plan_table(members: Sequence[SourceImage], shard: str) -> pa.Table:
    return dataset_schema("ingest_plan").table(
        {
            "row_key": [image.row_key for image in members],
            "source_uri": [image.uri for image in members],
            "source_bytes": [image.size for image in members],
            "category": [image.category for image in members],
            "split": [image.split for image in members],
            "label": [image.label for image in members],
            "defect_kind": [image.defect_kind for image in members],
            "anomaly_type": [image.anomaly_type for image in members],
            "mask_uris": [list(image.mask_uris) for image in members],
            "shard": [shard] * len(members),
        }
    )
