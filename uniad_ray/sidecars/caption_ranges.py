"""The value ranges of a caption sidecar: a model sees all images of a category alike, however often it is asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from uniad_ray.archive.manifest import ArchiveManifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.value_range import find_value_range
from uniad_ray.config.base import StrictModel
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import SidecarError

RANGES_NAME: Final = "value_ranges.json"


class CaptionRanges(StrictModel):
    """Ranges of the values of originals with 16 bits a channel.

    Attributes:
        value_ranges: Values that become black and white, by category.
    """

    value_ranges: dict[str, ValueRange]


def caption_ranges(
    sidecar: Location, archive: Location, manifest: ArchiveManifest, categories: Iterable[str]
) -> dict[str, ValueRange | None]:
    """The stored ranges of some categories; those that are missing are found in the archive and stored.

    A category of 8-bit images has none, so that one is found if other images follow.

    Args:
        sidecar: Root of the sidecar; the caller holds its lease.
        archive: Root of the archive.
        manifest: Its manifest.
        categories: Categories of the archive.

    Raises:
        ArchiveError: A shard is corrupt.
        SidecarError: The stored ranges are corrupt.
    """
    stored = _read(sidecar)
    found = {name: stored.get(name) or find_value_range(archive, manifest, name) for name in sorted(set(categories))}
    new = {name: own for name, own in found.items() if own is not None and name not in stored}
    if new:
        document = CaptionRanges(value_ranges=stored | new)
        (sidecar / RANGES_NAME).write_json(document.model_dump(mode="json"))
    return found


def _read(sidecar: Location) -> dict[str, ValueRange]:
    location = sidecar / RANGES_NAME
    if not location.exists():
        return {}
    try:
        return CaptionRanges.model_validate(location.read_json()).value_ranges
    except ValidationError as error:
        raise SidecarError(
            f"{location}: corrupt; restore it, or delete it, and later images may be shown in another range"
        ) from error
