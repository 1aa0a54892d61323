"""The range of values of a category's images with more than 8 bits: what becomes black and white for the networks.

The range is that of the camera, the smallest usual number of bits that holds every value of the normal images: a defect
may be brighter than all of them, and is not clipped. If the normal images use less than a sixth of it, the range is
narrower: what they use, and as much again on either side for darker and brighter defects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from uniad_ray.archive.image_size import with_image_size
from uniad_ray.archive.images import DEFAULT_LIMITS, probe_image
from uniad_ray.archive.images.bit_depth import camera_bits, sixteen_bits_or_none
from uniad_ray.archive.manifest import ArchiveManifest, Chunk, chunks
from uniad_ray.archive.normal_rows import read_normal_rows, read_rows
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.model import FitConfig
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import ImageError

_FORMATS: Final = ("PNG", "TIFF")
"""Formats that may have more than 8 bits."""
_CHUNKS: Final = 8
_IMAGES: Final = 32
"""Maximum number of chunks and images that are looked at."""
_TAIL: Final = 1e-4
"""Fraction of the values that may be below, and above, what the images use: defective pixels of a camera."""
_NARROW: Final = 0.5
"""A range is narrowed only if that at least halves it; otherwise it would hardly help, and change with every image."""
_STEPS: Final = 32
_LEAST_WIDTH: Final = 255
_VALUES: Final = 1 << 16

_Item = TypeVar("_Item")


class Seen(NamedTuple):
    """What was seen of the images of a category.

    Attributes:
        counts: int64, shape (65536,): number of pixels by value, of the images with more than 8 bits.
        has_others: Whether there are images with 8 bits too.
    """

    counts: npt.NDArray[np.int64]
    has_others: bool


def category_config(config: FitConfig, archive: Location, manifest: ArchiveManifest, category: str) -> FitConfig:
    """The result of `with_image_size`, whose arguments these are, with the value range of the category's images.

    A range that is set is kept. Without images of more than 8 bits, it stays null.

    Raises:
        ArchiveError: The category has no images, or a shard is corrupt.
        ConfigError: As in `with_image_size`.
    """
    sized = with_image_size(config, archive, manifest, category)
    if sized.value_range is not None:
        return sized
    found = find_value_range(archive, manifest, category, config.normal_images.exclude)
    return sized if found is None else sized.model_copy(update={"value_range": found})


def find_value_range(
    archive: Location, manifest: ArchiveManifest, category: str, exclude: Collection[str] = ()
) -> ValueRange | None:
    """The range of values of a category, from its normal images; without any, all its images count.

    Args:
        archive: Root of the archive.
        manifest: Its manifest.
        category: Category of the archive.
        exclude: Names of images to leave out; see `read_normal_rows`.

    Raises:
        ArchiveError: A shard is corrupt.
    """
    counts = np.zeros(_VALUES, dtype=np.int64)
    has_others = False
    for data in _sampled(archive, manifest, category, exclude):
        found = sixteen_bits_or_none(data, DEFAULT_LIMITS)
        if found is None:
            has_others = has_others or _is_image(data)
        else:
            counts += np.bincount(found.values.ravel(), minlength=_VALUES)
    return choose_range(Seen(counts, has_others))


def choose_range(seen: Seen) -> ValueRange | None:
    """The range of values for images; None if none has more than 8 bits.

    Beside images with 8 bits, which have the range of a camera, it is always that of a camera.

    Args:
        seen: What was seen of the normal images.
    """
    total = int(seen.counts.sum())
    if not total:
        return None
    largest = int(np.flatnonzero(seen.counts)[-1])
    top = (1 << camera_bits(largest)) - 1
    if seen.has_others:
        return 0, top
    cumulative = np.cumsum(seen.counts)
    low = int(np.searchsorted(cumulative, _TAIL * total, side="right"))
    high = int(np.searchsorted(cumulative, (1 - _TAIL) * total))
    # A coarse step, so that a few more images seldom move the range.
    step = max(1, (top + 1) // _STEPS)
    room = max(high - low, (_LEAST_WIDTH - (high - low)) // 2)
    start = max(0, (low - room) // step * step)
    end = min(top, -(-(high + room) // step) * step)
    return (start, end) if end - start <= _NARROW * top else (0, top)


def _sampled(archive: Location, manifest: ArchiveManifest, category: str, exclude: Collection[str]) -> Iterator[bytes]:
    """Encoded images, spread evenly over the archive; of other formats than PNG and TIFF at most one."""
    rows = read_normal_rows(archive, manifest, category, ("format",), exclude)
    rows = rows or list(read_rows(archive, chunks(manifest, categories=[category]), ("format",)))
    places: dict[Chunk, list[int]] = {}
    others: dict[Chunk, list[int]] = {}
    for (format_name,), chunk, position in rows:
        (places if format_name in _FORMATS else others).setdefault(chunk, []).append(position)
    if not places:
        return
    chosen = _spread([*places], _CHUNKS)
    wanted = [(chunk, _spread(places[chunk], _IMAGES // len(chosen))) for chunk in chosen]
    wanted += [(chunk, own[:1]) for chunk, own in [*others.items()][:1]]
    for chunk, positions in wanted:
        images = read_chunk(archive, chunk, columns=["image"]).column("image")
        for position in positions:
            yield images[position].as_py()


def _spread(items: list[_Item], most: int) -> list[_Item]:
    """At most some items, evenly spread."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]


def _is_image(data: bytes) -> bool:
    try:
        probe_image(data)
    except ImageError:
        return False
    return True
