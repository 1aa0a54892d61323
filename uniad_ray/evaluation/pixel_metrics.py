"""Pixel metrics of one category: kept maps against ground-truth masks, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from uniad_ray.archive.defects import DefectKind, read_defect_kinds
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.errors import ArchiveError, StoreError
from uniad_ray.evaluation.labelled_images import Group, LabelledImages
from uniad_ray.evaluation.pixel_counts import (
    NORMAL,
    CountChunks,
    Part,
    PixelCounts,
    PixelTask,
    count_chunks,
    labelled_chunks,
)
from uniad_ray.metrics import catalogue
from uniad_ray.metrics.metric import ALL
from uniad_ray.metrics.pixel import PixelMetrics
from uniad_ray.metrics.wording import count
from uniad_ray.progress import Progress
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.regions import bundle_is_gone, region_of


class CategoryPixelMetrics:
    """Pixel metrics of the labelled images of one category, by group.

    Attributes:
        notes: Remarks on omissions and their reasons, and on assumptions.
    """

    def __init__(self, reader: RunReader, labelled: LabelledImages, counter: CountChunks = count_chunks) -> None:
        """Counts the pixels of all labelled images, one chunk at a time.

        Args:
            reader: The run.
            labelled: The labelled images.
            counter: Counts chunks; the metrics do not depend on it.
        """
        self.notes: list[str] = []
        self._labelled = labelled
        self._found = PixelCounts()
        self._region_is_unknown = False
        self._read(reader, counter)

    def metrics(
        self, group: Group, resamples: int
    ) -> Iterator[tuple[str, float | None, float | None, npt.NDArray[np.float64] | None]]:
        """Computes all pixel metrics of the catalogue for one group; nothing if the category has no maps or masks.

        Yields:
            Name, limit, value, and values in the resamples: float64, shape (resamples,), or None without resamples.
        """
        if all(part == NORMAL for part in self._found.metrics):
            return
        joined = PixelMetrics()
        for part in self._parts_of(group):
            joined.merge(self._found.metrics[part])
        entries = [(entry, entry.of_pixels) for entry in catalogue.CATALOGUE if entry.of_pixels is not None]
        curves = [curve for _, curve in entries]
        values = [joined.area(curve) for curve in curves]
        resampled = (
            joined.resampled(curves, resamples=resamples).T
            if resamples and values[0] is not None
            else [None] * len(values)
        )
        for (entry, _), value, samples in zip(entries, values, resampled, strict=True):
            yield entry.key, entry.limit, value, samples

    def counts(self, group: Group) -> dict[str, int]:
        """Number of images behind the metrics of a group."""
        counted = self._found.counted
        anomalous = sum(counted[part] for part in self._parts_of(group) if part != NORMAL)
        return {"normal_images": counted[NORMAL], "anomalous_images": anomalous}

    def _parts_of(self, group: Group) -> list[Part]:
        return [
            part
            for part in sorted(self._found.metrics, key=str)
            if part == NORMAL or group.group == ALL or group.name == part[group.group == "defect_kind"]
        ]

    def _read(self, reader: RunReader, counter: CountChunks) -> None:
        category = self._labelled.category
        kept = reader.manifest.plan.options.maps
        if kept != "all":
            self.notes.append(f"{category}: no pixel metrics, because the run has --maps {kept}; score with --maps all")
            return
        try:
            manifest = read_manifest(reader.archive)
            if manifest.digest != reader.manifest.plan.archive_digest:
                self.notes.append(f"{category}: the archive has changed since the run; new images are not evaluated")
            summary = manifest.categories.get(category)
            self._region_is_unknown = bundle_is_gone(reader, category)
            kinds = self._defect_kinds(summary.defects_config if summary else None)
            self._count(reader, PixelTask(reader.location, region_of(reader, category), kinds), counter)
        except (ArchiveError, StoreError) as error:
            self._found = PixelCounts()
            self.notes.append(f"{category}: no pixel metrics, because the archive cannot be read: {error}")
            return
        self._note_what_was_left_out()

    def _defect_kinds(self, config: Sequence[object] | None) -> dict[int, DefectKind] | None:
        if config is None:
            return None
        kinds, problems = read_defect_kinds(config)
        self.notes += [f"{self._labelled.category}: defects_config.json, {problem}" for problem in problems]
        if problems and not kinds:
            self.notes.append(
                f"{self._labelled.category}: until then each connected component of a mask saturates at its whole area"
            )
            return None
        return kinds

    def _count(self, reader: RunReader, task: PixelTask, counter: CountChunks) -> None:
        work = labelled_chunks(reader.chunks, self._labelled)
        images = sum(len(chunk.images) for chunk in work)
        with Progress(f"evaluating the pixels of {self._labelled.category}", images) as progress:
            for found in counter(task, work):
                self._found.merge(found)
                progress.advance(found.images)

    def _note_what_was_left_out(self) -> None:
        category = self._labelled.category
        found = self._found
        if found.deleted:
            gone = count(found.deleted, "image")
            self.notes.append(f"{category}: {gone} deleted from the archive, excluded from the pixel metrics")
        anomalous = int(self._labelled.anomalous.sum())
        if anomalous and found.left_out.total() == anomalous == found.left_out["no mask"]:
            self.notes.append(f"{category}: no ground-truth masks, so no pixel metrics")
            return
        self.notes += [
            f"{category}: {count(number, 'anomalous image')} with {what}, excluded from the pixel metrics"
            for what, number in sorted(found.left_out.items())
        ]
        if self._region_is_unknown and found.metrics.keys() - {NORMAL}:
            self.notes.append(
                f"{category}: the bundle of the run is gone, so the pixel metrics count all of the images, also "
                "what was outside of a region"
            )
        if found.unknown_values:
            values = ", ".join(str(value) for value in sorted(found.unknown_values))
            self.notes.append(
                f"{category}: masks contain grey values that are missing in defects_config.json ({values}); such "
                "defects saturate at their whole area"
            )
