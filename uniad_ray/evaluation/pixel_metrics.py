"""Pixel metrics of one category: kept maps against ground-truth masks, chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from uniad_ray.archive.defects import DefectKind, read_defect_kinds
from uniad_ray.archive.images import ImageLimits, decode_mask
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.errors import ArchiveError, ImageError, StoreError
from uniad_ray.evaluation.labelled_images import Group, LabelledImages
from uniad_ray.metrics import catalogue
from uniad_ray.metrics.metric import ALL
from uniad_ray.metrics.pixel import PixelMetrics
from uniad_ray.metrics.saturation import find_defects
from uniad_ray.metrics.wording import count
from uniad_ray.perception.region import Region
from uniad_ray.progress import Progress
from uniad_ray.runs.reader import RunReader, SourceRow
from uniad_ray.runs.regions import bundle_is_gone, region_of

Part = tuple[str | None, str | None]
"""Anomaly type and defect kind shared by some images."""

NORMAL: Part = (None, None)


class CategoryPixelMetrics:
    """Pixel metrics of the labelled images of one category, by group.

    Attributes:
        notes: Remarks on omissions and their reasons, and on assumptions.
    """

    def __init__(self, reader: RunReader, labelled: LabelledImages) -> None:
        """Reads the maps and masks of all labelled images, one chunk at a time."""
        self.notes: list[str] = []
        self._labelled = labelled
        self._parts: dict[Part, PixelMetrics] = {}
        self._counted: Counter[Part] = Counter()
        self._left_out: Counter[str] = Counter()
        self._unknown_values: set[int] = set()
        self._deleted = 0
        self._region: Region | None = None
        self._region_is_unknown = False
        self._read(reader)

    def metrics(
        self, group: Group, resamples: int
    ) -> Iterator[tuple[str, float | None, float | None, npt.NDArray[np.float64] | None]]:
        """Computes all pixel metrics of the catalogue for one group; nothing if the category has no maps or masks.

        Yields:
            Name, limit, value, and values in the resamples: float64, shape (resamples,), or None without resamples.
        """
        if all(part == NORMAL for part in self._parts):
            return
        joined = PixelMetrics()
        for part in self._parts_of(group):
            joined.merge(self._parts[part])
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
        anomalous = sum(self._counted[part] for part in self._parts_of(group) if part != NORMAL)
        return {"normal_images": self._counted[NORMAL], "anomalous_images": anomalous}

    def _parts_of(self, group: Group) -> list[Part]:
        return [
            part
            for part in sorted(self._parts, key=str)
            if part == NORMAL or group.group == ALL or group.name == part[group.group == "defect_kind"]
        ]

    def _read(self, reader: RunReader) -> None:
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
            self._region = region_of(reader, category)
            self._region_is_unknown = bundle_is_gone(reader, category)
            self._count_chunks(reader, self._defect_kinds(summary.defects_config if summary else None))
        except (ArchiveError, StoreError) as error:
            self._parts.clear()
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

    def _count_chunks(self, reader: RunReader, kinds: dict[int, DefectKind] | None) -> None:
        index = {key: position for position, key in enumerate(self._labelled.row_keys.to_pylist())}
        with Progress(f"evaluating the pixels of {self._labelled.category}", len(index)) as progress:
            for chunk in reader.chunks:
                if chunk.category != self._labelled.category:
                    continue
                keys = [
                    key for key in reader.chunk_scores(chunk, ["row_key"]).column("row_key").to_pylist() if key in index
                ]
                maps = reader.chunk_maps(chunk) if keys else {}
                if maps:
                    deleted = set(keys)
                    for key, row in reader.source_rows(chunk, with_images=False):
                        deleted.discard(key)
                        if key in index and key in maps:
                            self._count(index[key], maps[key], row, kinds)
                    self._deleted += len(deleted)
                progress.advance(len(keys))

    def _count(
        self, position: int, anomaly_map: np.ndarray, row: SourceRow, kinds: dict[int, DefectKind] | None
    ) -> None:
        part = NORMAL
        masks: list[np.ndarray] = []
        inside = None if self._region is None else self._region.at((row.height, row.width))
        if self._labelled.anomalous[position]:
            part = (self._labelled.anomaly_types[position], self._labelled.defect_kinds[position])
            found = self._decode(row)
            if found is None:
                return
            masks = found if inside is None else [np.where(inside, mask, 0).astype(mask.dtype) for mask in found]
            if not any(mask.any() for mask in masks):
                self._left_out["a mask outside of the region"] += 1
                return
        joined = np.zeros((row.height, row.width), dtype=bool)
        for mask in masks:
            joined |= mask > 0
        defects = None
        if kinds is not None:
            defects, unknown = find_defects(masks, kinds)
            self._unknown_values |= unknown
        self._parts.setdefault(part, PixelMetrics()).update(anomaly_map, joined, defects, inside)
        self._counted[part] += 1

    def _decode(self, row: SourceRow) -> list[np.ndarray] | None:
        """Decodes the masks of an anomalous image; if none is usable, counts the image as left out and returns None."""
        masks = []
        for file in row.masks:
            try:
                mask = decode_mask(file.data, ImageLimits())
            except ImageError:
                self._left_out["a mask that cannot be read"] += 1
                return None
            if mask.shape != (row.height, row.width):
                self._left_out["a mask of the wrong size"] += 1
                return None
            masks.append(mask)
        if not any(mask.any() for mask in masks):
            self._left_out["no mask" if not masks else "an empty mask"] += 1
            return None
        return masks

    def _note_what_was_left_out(self) -> None:
        category = self._labelled.category
        if self._deleted:
            gone = count(self._deleted, "image")
            self.notes.append(f"{category}: {gone} deleted from the archive, excluded from the pixel metrics")
        anomalous = int(self._labelled.anomalous.sum())
        if anomalous and self._left_out.total() == anomalous == self._left_out["no mask"]:
            self.notes.append(f"{category}: no ground-truth masks, so no pixel metrics")
            return
        self.notes += [
            f"{category}: {count(number, 'anomalous image')} with {what}, excluded from the pixel metrics"
            for what, number in sorted(self._left_out.items())
        ]
        if self._region_is_unknown and self._parts.keys() - {NORMAL}:
            self.notes.append(
                f"{category}: the bundle of the run is gone, so the pixel metrics count all of the images, also "
                "what was outside of a region"
            )
        if self._unknown_values:
            values = ", ".join(str(value) for value in sorted(self._unknown_values))
            self.notes.append(
                f"{category}: masks contain grey values that are missing in defects_config.json ({values}); such "
                "defects saturate at their whole area"
            )
