"""Sets a finished run against its labels and masks, and stores the figures beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from uniad_ray.archive.images import ImageLimits, decode_mask
from uniad_ray.archive.manifest import Chunk, chunks, read_manifest
from uniad_ray.archive.object_store import Location
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_chunk, read_table
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ImageError, RunError
from uniad_ray.metrics.auroc import PixelAuroc, image_auroc
from uniad_ray.pipelines.progress import Progress
from uniad_ray.pipelines.run_plan import RunManifest, maps_path, read_run, scores_path
from uniad_ray.pipelines.score_chunk import decode_map

_logger = logging.getLogger(__name__)

METRICS_PATH = "evaluation/metrics.parquet"
ALL = "all"
_SCORE_COLUMNS = ("row_key", "split", "label", "defect_kind", "anomaly_type", "status", "score")


class Metric(StrictModel):
    """One figure; the fields are the columns of schema `metric`."""

    category: str
    group: str
    name: str
    metric: str
    value: float | None
    normal_images: int
    anomalous_images: int
    note: str | None = None


class EvaluationReport(StrictModel):
    """All figures of a run.

    Attributes:
        run: Root of the run.
        run_id: Digest of its plan.
        split: Split the figures are of: `test`, or `archive` where the archive has no test split.
        metrics: The figures.
        unlabelled_images: Images left out since they have no label.
        error_images: Labelled images left out since they could not be scored.
        random_weights: Whether a network had random weights, so that the figures say nothing of quality.
    """

    run: str
    run_id: str
    split: str
    metrics: tuple[Metric, ...]
    unlabelled_images: int
    error_images: int
    random_weights: bool


@dataclass
class _Category:
    """What evaluation gathers of one category."""

    scores: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    pixels: dict[tuple[str, str], PixelAuroc] = field(default_factory=dict)
    normal_scores: list[float] = field(default_factory=list)
    normal_pixels: PixelAuroc = field(default_factory=PixelAuroc)
    masked_images: dict[tuple[str, str], int] = field(default_factory=dict)
    mapped_normals: int = 0
    unmasked: int = 0


def evaluate(run: str) -> EvaluationReport:
    """Computes image AUROC and pixel AUROC of a finished run and stores them as `evaluation/metrics.parquet`.

    Each defect kind and each anomaly type is set against all normal images of its category. Only the test split counts
    where there is one, since the training images have been seen by the experts.

    Args:
        run: Root of the run.

    Raises:
        RunError: The run is not finished, or none of its images has a label.
    """
    location = Location.parse(run)
    manifest = read_run(location)
    archive = Location.parse(manifest.plan.archive)
    options = manifest.plan.options
    archive_manifest = read_manifest(archive)
    if archive_manifest.digest != manifest.plan.archive_digest:
        _logger.warning("%s has changed since the run; the images of the run are evaluated", archive)
    every = [
        chunk
        for chunk in chunks(archive_manifest, categories=options.categories, splits=options.splits)
        if chunk.category in manifest.plan.bundles
    ]
    split = "test" if any(chunk.split == "test" for chunk in every) else "archive"
    work = [chunk for chunk in every if chunk.split == split]
    gathered: dict[str, _Category] = {}
    unlabelled = errors = 0
    with Progress("evaluating", sum(chunk.rows for chunk in work)) as progress:
        for chunk in work:
            category = gathered.setdefault(chunk.category, _Category())
            missing, failed = _gather(location, archive, chunk, category, with_maps=options.maps == "all")
            unlabelled += missing
            errors += failed
            progress.advance(chunk.rows, failed)
    if not any(item.normal_scores or item.scores for item in gathered.values()):
        raise RunError(
            f"{location}: no image of the run has a label; evaluate needs normal and anomalous images with labels"
        )
    metrics = [entry for name, item in sorted(gathered.items()) for entry in _metrics(name, item, manifest)]
    metrics += _means(metrics)
    schema = dataset_schema("metric")
    table = schema.table({name: [getattr(entry, name) for entry in metrics] for name in schema.arrow.names})
    (location / METRICS_PATH).write_bytes(encode_table(schema, table))
    return EvaluationReport(
        run=location.uri,
        run_id=manifest.run_id,
        split=split,
        metrics=tuple(metrics),
        unlabelled_images=unlabelled,
        error_images=errors,
        random_weights=manifest.random_weights,
    )


def _gather(run: Location, archive: Location, chunk: Chunk, category: _Category, *, with_maps: bool) -> tuple[int, int]:
    """Adds one chunk's scores and maps; gives the images without label and those with an error."""
    table = read_table(dataset_schema("score"), run / scores_path(chunk.name)).select(_SCORE_COLUMNS)
    maps = _read_maps(run, chunk) if with_maps else {}
    masks = _masks(archive, chunk) if maps else {}
    unlabelled = errors = 0
    for row in table.to_pylist():
        if row["label"] is None:
            unlabelled += 1
        elif row["status"] == "error":
            errors += 1
        elif row["label"] == "normal":
            category.normal_scores.append(row["score"])
            if row["row_key"] in maps:
                _, height, width = masks[row["row_key"]]
                category.normal_pixels.update(maps[row["row_key"]], np.zeros((height, width), dtype=bool))
                category.mapped_normals += 1
        else:
            _add_anomalous(category, row, maps.get(row["row_key"]), masks.get(row["row_key"]))
    return unlabelled, errors


def _add_anomalous(
    category: _Category,
    row: dict[str, Any],
    anomaly_map: np.ndarray | None,
    masked: tuple[list[dict[str, Any]], int, int] | None,
) -> None:
    groups = [(ALL, ALL)]
    if row["anomaly_type"]:
        groups.append(("anomaly_type", row["anomaly_type"]))
    groups.append(("defect_kind", row["defect_kind"] or "unknown"))
    for group in groups:
        category.scores.setdefault(group, []).append(row["score"])
    if anomaly_map is None or masked is None:
        return
    files, height, width = masked
    if not files:
        category.unmasked += 1
        return
    mask = join_masks([item["mask"] for item in files], height, width)
    if mask is None:
        category.unmasked += 1
        return
    for group in groups:
        category.pixels.setdefault(group, PixelAuroc()).update(anomaly_map, mask)
        category.masked_images[group] = category.masked_images.get(group, 0) + 1


def join_masks(encoded: Iterable[bytes], height: int, width: int) -> np.ndarray | None:
    """Joins the masks of one image: a pixel above 0 in any of them is anomalous.

    Args:
        encoded: Mask files.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        bool, shape (height, width); None where a mask is damaged or of another size than the image.
    """
    joined = np.zeros((height, width), dtype=bool)
    for data in encoded:
        try:
            mask = decode_mask(data, ImageLimits())
        except ImageError as error:
            _logger.warning("a mask cannot be read: %s", error)
            return None
        if mask.shape != joined.shape:
            _logger.warning(
                "a mask is %s, its image %s; the image is left out of pixel figures", mask.shape, joined.shape
            )
            return None
        joined |= mask > 0
    return joined


def _read_maps(run: Location, chunk: Chunk) -> dict[str, np.ndarray]:
    location = run / maps_path(chunk.name)
    if not location.exists():
        return {}
    table = read_table(dataset_schema("anomaly_map"), location)
    return {row["row_key"]: decode_map(row["map"], row["height"], row["width"]) for row in _rows(table)}


def _masks(archive: Location, chunk: Chunk) -> dict[str, tuple[list[dict[str, Any]], int, int]]:
    table = read_chunk(archive, chunk, columns=["row_key", "masks", "height", "width"])
    return {row["row_key"]: (row["masks"], row["height"], row["width"]) for row in _rows(table)}


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=16):
        yield from batch.to_pylist()


def _metrics(name: str, category: _Category, manifest: RunManifest) -> Iterator[Metric]:
    normals = category.normal_scores
    groups = sorted(
        category.scores, key=lambda group: (["all", "anomaly_type", "defect_kind"].index(group[0]), group[1])
    )
    for group in groups or [(ALL, ALL)]:
        anomalous = category.scores.get(group, [])
        labels = np.array([False] * len(normals) + [True] * len(anomalous))
        value = image_auroc(labels, np.array(normals + anomalous)) if len(labels) else None
        yield Metric(
            category=name,
            group=group[0],
            name=group[1],
            metric="image_auroc",
            value=value,
            normal_images=len(normals),
            anomalous_images=len(anomalous),
            note=None if value is not None else "needs normal and anomalous images",
        )
        pixels = category.pixels.get(group)
        joined = PixelAuroc()
        if pixels is not None:
            joined.merge(pixels)
            joined.merge(category.normal_pixels)
        yield Metric(
            category=name,
            group=group[0],
            name=group[1],
            metric="pixel_auroc",
            value=joined.compute(),
            normal_images=category.mapped_normals,
            anomalous_images=category.masked_images.get(group, 0),
            note=_pixel_note(category, manifest, has_masks=pixels is not None),
        )


def _pixel_note(category: _Category, manifest: RunManifest, *, has_masks: bool) -> str | None:
    if manifest.plan.options.maps != "all":
        return f"the run keeps maps: {manifest.plan.options.maps}; pixel figures need --maps all"
    if not has_masks:
        return "no ground-truth masks"
    return f"{category.unmasked} anomalous images have no usable mask" if category.unmasked else None


def _means(metrics: list[Metric]) -> list[Metric]:
    """Means over categories of the figures over all images and per anomaly type, where there are several categories."""
    if len({entry.category for entry in metrics}) < 2:
        return []
    means = []
    for key in sorted({(entry.group, entry.name, entry.metric) for entry in metrics if entry.group != "defect_kind"}):
        members = [entry for entry in metrics if (entry.group, entry.name, entry.metric) == key]
        known = [entry for entry in members if entry.value is not None]
        values = [entry.value for entry in known if entry.value is not None]
        means.append(
            Metric(
                category="*",
                group=key[0],
                name=key[1],
                metric=key[2],
                value=float(np.mean(values)) if values else None,
                normal_images=sum(entry.normal_images for entry in known),
                anomalous_images=sum(entry.anomalous_images for entry in known),
                note=None if len(known) == len(members) else f"mean over {len(known)} of {len(members)} categories",
            )
        )
    return means
