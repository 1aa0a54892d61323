"""Builds a planned shard from its files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from uniad_ray.archive.defects import defect_kinds_by_value
from uniad_ray.archive.images import ImageInfo, ImageLimits, decode_mask, probe_image
from uniad_ray.archive.images.bit_depth import looks_unshifted, sixteen_bit_peak
from uniad_ray.archive.ingest.known import sha256
from uniad_ray.archive.ingest.mask_colors import class_names, labelled_mask
from uniad_ray.archive.ingest.records import ShardRecord
from uniad_ray.archive.layouts.entries import changed_key
from uniad_ray.archive.layouts.manifests.listed import captured_at
from uniad_ray.archive.manifest import RejectedFile
from uniad_ray.archive.shards import ShardLimits, encode_shard
from uniad_ray.archive.stores.local import seconds_to_settle
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ImageError, ObjectDeniedError, ObjectNotFoundError, ObjectTooLargeError

_PEAKS = 16
"""Maximum number of 16-bit images of a shard to look at for their largest value."""
_OTHER_MASK = "changed or added after its image; rows never change, so ingest the source into a new archive to use it"


def build_shard(
    planned: Sequence[dict[str, Any]],
    *,
    defects: list[dict[str, Any]] | None,
    image_limits: ImageLimits,
    shard_limits: ShardLimits,
) -> tuple[bytes | None, ShardRecord]:
    """Reads the files of one planned shard and encodes those that are not in the archive yet.

    A file that is missing, may not be read or is not an image is recorded with the reason. So is a mask; its image is
    taken. A store failure is an error of the job, because a retry may succeed.

    Args:
        planned: Rows of the plan, all of the same shard.
        defects: Usable entries of the category's `defects_config.json`, which names defects by grey value of the mask.
        image_limits: Limits of each image file.
        shard_limits: Limits of the row groups.

    Returns:
        The shard's bytes, or None if it has no new image; and the record of each file's outcome.

    Raises:
        StoreError: The store failed.
    """
    rows: list[dict[str, Any]] = []
    rejected: list[RejectedFile] = []
    rejected_masks: list[RejectedFile] = []
    changed: list[str] = []
    known = read_bytes = 0
    peaks: list[int] = []
    names = defect_kinds_by_value(defects)
    for entry in planned:
        uri = entry["source_uri"]
        try:
            data = _read_image(entry, image_limits)
            image_id = sha256(data)
            is_known = image_id in entry["known_images"]
            info = None if is_known else probe_image(data, image_limits)
        except (ImageError, ObjectDeniedError, ObjectNotFoundError, ObjectTooLargeError) as error:
            rejected.append(RejectedFile(source_uri=uri, reason=_reason(uri, error)))
            continue
        masks, values, problems = _read_masks(entry, image_limits, is_known=is_known)
        rejected_masks += problems
        if info is None:
            known += 1
            continue
        if entry["known_images"]:
            changed.append(uri)
        if len(peaks) < _PEAKS and all(map(looks_unshifted, peaks)):
            peak = sixteen_bit_peak(data, image_limits)
            peaks += [] if peak is None else [peak]
        own_names = class_names(entry["mask_classes"]) or names
        rows.append(_row(entry, data, image_id, info, masks) | {"defect_kind": _defect_kind(entry, values, own_names)})
        read_bytes += len(data)
    encoded, shard = encode_shard(planned[0]["shard"], rows, shard_limits) if rows else (None, None)
    return encoded, ShardRecord(
        shard=shard,
        rejected=tuple(rejected),
        rejected_masks=tuple(rejected_masks),
        known=known,
        changed=tuple(changed),
        peak=max(peaks, default=None),
        read_bytes=read_bytes,
    )


def _read_image(entry: dict[str, Any], limits: ImageLimits) -> bytes:
    location = Location.parse(entry["source_uri"])
    if entry["source_bytes"] > limits.max_bytes:
        raise ImageError("too_large", f"the file has {entry['source_bytes']} bytes; the limit is {limits.max_bytes}")
    if location.is_local:
        time.sleep(seconds_to_settle(entry["source_version"], time.time()))
    return location.read_bytes(max_bytes=limits.max_bytes)


def _read_masks(
    entry: dict[str, Any], limits: ImageLimits, *, is_known: bool
) -> tuple[list[dict[str, Any]], list[np.ndarray], list[RejectedFile]]:
    """The mask files of an image, the decoded ones, and those that cannot be used.

    A mask that cannot be used stays in the row, empty if it cannot be read: without it, the rest would pass for the
    whole ground truth.
    """
    masks: list[dict[str, Any]] = []
    values: list[np.ndarray] = []
    problems: list[RejectedFile] = []
    for uri, version in zip(entry["mask_uris"], entry["mask_versions"], strict=True):
        data, reason = b"", None
        try:
            data = Location.parse(uri).read_bytes(max_bytes=limits.max_bytes)
            if entry["mask_classes"]:
                data = labelled_mask(data, entry["mask_classes"], limits)
            values.append(decode_mask(data, limits))
        except (ImageError, ObjectDeniedError, ObjectNotFoundError, ObjectTooLargeError) as error:
            is_missing = isinstance(error, ObjectNotFoundError) and not version
            reason = "does not exist" if is_missing else _reason(uri, error)
        if reason is None and is_known and sha256(data) not in entry["known_masks"]:
            reason = _OTHER_MASK
        masks.append({"source_uri": uri, "mask": data})
        problems += [] if reason is None else [RejectedFile(source_uri=uri, reason=reason)]
    return masks, values, problems


def _reason(uri: str, error: Exception) -> str:
    if isinstance(error, ImageError):
        return f"{error.kind}: {error}"
    if isinstance(error, ObjectNotFoundError):
        return "deleted since the source was listed"
    return str(error).removeprefix(f"{uri}: ")


def _row(
    entry: dict[str, Any], data: bytes, image_id: str, info: ImageInfo, masks: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "row_key": changed_key(entry["row_key"], image_id) if entry["known_images"] else entry["row_key"],
        "image_id": image_id,
        "image": data,
        "source_uri": entry["source_uri"],
        "category": entry["category"],
        "split": entry["split"],
        "label": entry["label"],
        "anomaly_type": entry["anomaly_type"],
        "masks": masks,
        "format": info.format,
        "width": info.width,
        "height": info.height,
        "captured_at": _captured_at(entry, info),
        "metadata": entry["metadata"],
    }


def _captured_at(entry: dict[str, Any], info: ImageInfo) -> str | None:
    """The time of the manifest, else that of EXIF."""
    for column in entry["metadata"]:
        if column["name"] == "time":
            return captured_at(column["value"]).isoformat()
    return info.captured_at.isoformat() if info.captured_at else None


def _defect_kind(entry: dict[str, Any], masks: Sequence[np.ndarray], names: dict[int, str]) -> str | None:
    """Names the defect by its masks if there are names for their values, else as the source does."""
    folder: str | None = entry["defect_kind"]
    if not names or (folder is None and not entry["mask_classes"]):
        return folder
    found = {names[value] for mask in masks for value in np.unique(mask).tolist() if value in names}
    return "+".join(sorted(found)) or folder
