"""Counts pixels chunk by chunk: the part of an evaluation that any process can do, with small results to add up."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from uniad_ray.archive.defects import DefectKind
from uniad_ray.archive.images import ImageLimits, decode_mask
from uniad_ray.archive.manifest import chunk_name
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ImageError
from uniad_ray.evaluation.labelled_images import LabelledImages
from uniad_ray.metrics.pixel import PixelMetrics
from uniad_ray.metrics.saturation import find_defects
from uniad_ray.perception.region import Region
from uniad_ray.runs.plan import RunChunk
from uniad_ray.runs.reader import RunReader, SourceRow

Part = tuple[str | None, str | None]
"""Anomaly type and defect kind shared by some images."""

NORMAL: Final[Part] = (None, None)
MAX_UNITS: Final = 2048
"""Units that resamples draw from, normal and anomalous ones each; more images share units. The width of an interval
then has a standard error of 1.6 %, and memory and time of the intervals no longer grow with the images."""

Unit = tuple[Part, int]


@dataclass(frozen=True)
class PixelTask:
    """What is the same for all chunks of a category.

    Attributes:
        run: Root of the run.
        region: The part of the images that counts; None for all of it.
        kinds: Kinds of defects by grey value of the masks; None if every connected component of a mask is a defect.
    """

    run: Location
    region: Region | None = None
    kinds: Mapping[int, DefectKind] | None = None


@dataclass(frozen=True)
class LabelledChunk:
    """The labelled images of one chunk.

    Attributes:
        chunk: The chunk.
        images: Part and unit by row key; None as unit if the image is one of its own.
    """

    chunk: RunChunk
    images: Mapping[str, tuple[Part, Unit | None]]


@dataclass
class PixelCounts:
    """What was counted in some chunks. Merged in the order of the chunks, it is equal to the last bit wherever counted.

    Attributes:
        images: Number of labelled images that were looked at.
        metrics: Pixel metrics by part.
        counted: Number of images behind them, by part.
        left_out: Number of anomalous images that do not count, by reason.
        unknown_values: Grey values of masks that no kind of defect has.
        deleted: Number of images that the archive no longer has.
    """

    images: int = 0
    metrics: dict[Part, PixelMetrics] = field(default_factory=dict)
    counted: Counter[Part] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    unknown_values: set[int] = field(default_factory=set)
    deleted: int = 0

    def merge(self, other: PixelCounts) -> None:
        """Adds what was counted in later chunks."""
        self.images += other.images
        for part, metrics in other.metrics.items():
            self.metrics.setdefault(part, PixelMetrics()).merge(metrics)
        self.counted += other.counted
        self.left_out += other.left_out
        self.unknown_values |= other.unknown_values
        self.deleted += other.deleted


CountChunks = Callable[[PixelTask, Sequence[LabelledChunk]], Iterable[PixelCounts]]
"""Counts chunks, and yields one result a chunk in the same order: `count_chunks`, or one that shares them out."""


def labelled_chunks(chunks: Iterable[RunChunk], labelled: LabelledImages) -> list[LabelledChunk]:
    """Finds the labelled images of each chunk of their category, in the order of the chunks.

    Args:
        chunks: All chunks of the run.
        labelled: The labelled images of a category; their details have `shard` and `row_group`.
    """
    places = labelled.details.select(["row_key", "shard", "row_group"]).to_pydict()
    images: defaultdict[str, dict[str, tuple[Part, Unit | None]]] = defaultdict(dict)
    for shard, row_group, key, found in zip(
        places["shard"], places["row_group"], places["row_key"], _parts_and_units(labelled), strict=True
    ):
        images[chunk_name(shard, row_group)][key] = found
    return [LabelledChunk(chunk, images[chunk.chunk]) for chunk in chunks if chunk.chunk in images]


def _parts_and_units(labelled: LabelledImages) -> Iterator[tuple[Part, Unit | None]]:
    """Parts and units in order. Units have equally many images, apart from the last of a part."""
    anomalous = labelled.anomalous
    sizes = {bad: math.ceil(np.count_nonzero(anomalous == bad) / MAX_UNITS) for bad in (False, True)}
    seen: Counter[Part] = Counter()
    for bad, part in zip(
        anomalous.tolist(), zip(labelled.anomaly_types, labelled.defect_kinds, strict=True), strict=True
    ):
        own = part if bad else NORMAL
        yield own, None if sizes[bad] == 1 else (own, seen[own] // sizes[bad])
        seen[own] += 1


def count_chunks(task: PixelTask, chunks: Iterable[LabelledChunk]) -> Iterator[PixelCounts]:
    """Counts chunks one after the other in this process.

    Args:
        task: What is the same for all chunks.
        chunks: Chunks of one category.

    Raises:
        ArchiveError: The archive or a file of the run is corrupt.
        StoreError: A file cannot be read.
    """
    reader = RunReader(task.run)
    for labelled in chunks:
        yield _count_chunk(reader, task, labelled)


def _count_chunk(reader: RunReader, task: PixelTask, labelled: LabelledChunk) -> PixelCounts:
    found = PixelCounts(images=len(labelled.images))
    maps = reader.chunk_maps(labelled.chunk)
    if maps:
        deleted = set(labelled.images)
        for key, row in reader.source_rows(labelled.chunk, with_images=False):
            deleted.discard(key)
            if key in labelled.images and key in maps:
                _count_image(found, task, maps[key], row, *labelled.images[key])
        found.deleted = len(deleted)
    return found


def _count_image(
    found: PixelCounts, task: PixelTask, anomaly_map: np.ndarray, row: SourceRow, part: Part, unit: Unit | None
) -> None:
    masks: list[np.ndarray] = []
    inside = None if task.region is None else task.region.at((row.height, row.width))
    if part != NORMAL:
        masks, problem = _decode(row)
        if problem is None and inside is not None:
            masks = [np.where(inside, mask, 0).astype(mask.dtype) for mask in masks]
            problem = None if any(mask.any() for mask in masks) else "a mask outside of the region"
        if problem is not None:
            found.left_out[problem] += 1
            return
    joined = np.zeros((row.height, row.width), dtype=bool)
    for mask in masks:
        joined |= mask > 0
    defects = None
    if task.kinds is not None:
        defects, unknown = find_defects(masks, task.kinds)
        found.unknown_values |= unknown
    found.metrics.setdefault(part, PixelMetrics()).update(anomaly_map, joined, defects, inside, unit)
    found.counted[part] += 1


def _decode(row: SourceRow) -> tuple[list[np.ndarray], str | None]:
    """Decodes the masks of an anomalous image, and says what is wrong with them if they cannot be used."""
    masks = []
    for file in row.masks:
        try:
            mask = decode_mask(file.data, ImageLimits())
        except ImageError:
            return [], "a mask that cannot be read"
        if mask.shape != (row.height, row.width):
            return [], "a mask of the wrong size"
        masks.append(mask)
    if not any(mask.any() for mask in masks):
        return [], "no mask" if not masks else "an empty mask"
    return masks, None
