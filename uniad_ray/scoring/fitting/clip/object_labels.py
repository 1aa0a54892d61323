"""Labelled crops of the objects in normal images; labels are segment names or confident CLIP classes (TMUAD, IV-B)."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import LearnedExtractor, StoredFields
from uniad_ray.perception.objects.crops import object_crops
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.perception.segments import Segments
from uniad_ray.scoring.factory import build_pipeline
from uniad_ray.scoring.fitting.clip.setup import ClipSetup
from uniad_ray.scoring.fitting.perceptions import (
    ExtendedPerceptions,
    ImagePerceptions,
    NormalImage,
    NormalImages,
    PerceptionSource,
    stream,
)
from uniad_ray.training.clip.crop_classifier import CropClassifier
from uniad_ray.training.clip.labelled_crops import LabelledCrop, LabelledCrops, encode_crop

UNSURE = "unsure"
NO_CLASS = "of no class"
_CROPS_AT_ONCE = 64


def labelling_pipeline(config: FitConfig, setup: ClipSetup, *, device: str) -> PerceptionPipeline:
    """Build the extractors of the segments to crop.

    Raises:
        ConfigError: An option is invalid, no extractor provides the segments, or they need a student.
        WeightsError: Weights of a network are missing.
    """
    pipeline = build_pipeline(config, [(setup.cropped, f"the tuning of {setup.name}")], device=device)
    for extractor in pipeline.stateful:
        if not isinstance(extractor, LearnedExtractor):
            raise ConfigError(
                f"{config.origin}: {setup.cropped} needs {extractor.name}, which must be trained first; "
                "choose other segments"
            )
    return pipeline


def label_objects(
    images: NormalImages,
    category: str,
    config: FitConfig,
    setup: ClipSetup,
    pipeline: PerceptionPipeline,
    classifier: CropClassifier,
    *,
    stored: StoredFields | None = None,
    on_image: Callable[[int], None] | None = None,
) -> LabelledCrops:
    """Segment images of a category, crop the objects, and label the crops.

    Args:
        images: Normal images of the category.
        category: Name of the category.
        config: The fit configuration.
        setup: The namer.
        pipeline: Pipeline of `labelling_pipeline`; learned extractors are fitted on these images.
        classifier: The CLIP to tune, in its current state.
        stored: Stored fields of the pipeline that need not be computed.
        on_image: Called with the number of images of each finished batch.

    Raises:
        ConfigError: The field has no segments, or its segments have no names.
        FitError: An extractor cannot learn from these images.
    """
    found: list[LabelledCrop] = []
    left_out: Counter[str] = Counter()
    tuning = setup.namer.tuning
    rows = {row.row_key: row for row in images.rows}
    with tempfile.TemporaryDirectory(prefix="uniad-ray-tune-") as folder:
        indices = chosen_images(images.rows, tuning.images, config.seed)
        source = _fitted(images, indices, config, setup, pipeline, stored, Path(folder))
        for perception in source.extract(indices, frozenset({setup.cropped})):
            if setup.cropped not in perception.segments:
                raise ConfigError(f"tuning.labels: {setup.cropped} is not a field of segments")
            for row_key, image, segments in zip(
                perception.row_keys, perception.images, perception.segments[setup.cropped], strict=True
            ):
                for position, crop, label in _labelled(image, segments, setup, classifier, left_out):
                    key = f"{row_key}/{position:04d}"
                    found.append(LabelledCrop(key, rows[row_key].image_id, category, label, encode_crop(crop)))
            if on_image is not None:
                on_image(len(perception))
    return LabelledCrops.at_most(found, tuning.most_crops, left_out, config.seed)


def chosen_images(rows: Sequence[NormalImage], most: int, seed: int) -> list[int]:
    """Draw at most `most` distinct images by hash; return their indices in row order.

    Args:
        rows: All images.
        most: Maximum number of images.
        seed: Seed of the draw.
    """
    first = {row.image_id: index for index, row in reversed(list(enumerate(rows)))}
    drawn = sorted(first.values(), key=lambda index: hashlib.sha256(f"{seed} {rows[index].row_key}".encode()).digest())
    return sorted(drawn[:most])


def _fitted(
    images: NormalImages,
    indices: Sequence[int],
    config: FitConfig,
    setup: ClipSetup,
    pipeline: PerceptionPipeline,
    stored: StoredFields | None,
    folder: Path,
) -> PerceptionSource:
    """Fit the learned segmenters on the images, and return the perceptions."""
    wanted = frozenset({setup.cropped}).union(*(extractor.needs for extractor in pipeline.dependent))
    learned = frozenset(name for extractor in pipeline.dependent for name in extractor.provides)
    source: PerceptionSource = ImagePerceptions(
        images,
        pipeline,
        wanted - learned,
        batch_size=config.batch_size,
        spill=folder / "images" if pipeline.dependent else None,
        stored=stored,
    )
    for extractor in pipeline.dependent:
        if isinstance(extractor, LearnedExtractor):
            extractor.fit(stream(source, indices, extractor.needs))
        source = ExtendedPerceptions(source, pipeline, extractor.provides & wanted, folder / extractor.name)
    return source


def _labelled(
    image: np.ndarray, segments: Segments, setup: ClipSetup, classifier: CropClassifier, left_out: Counter[str]
) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yield position, crop and class of the labelled segments of one image."""
    tuning, classes = setup.namer.tuning, list(setup.namer.classes)
    labels = np.full(len(segments), -1)
    if tuning.labels is not None:
        if len(segments) and not segments.names:
            raise ConfigError(f"tuning.labels: the segments of {tuning.labels} have no names")
        for position, name in enumerate(segments.names):
            if name not in classes:
                left_out[NO_CLASS] += 1
            elif segments.confidences[position] < tuning.least_confidence:
                left_out[UNSURE] += 1
            else:
                labels[position] = classes.index(name)
        segments, positions = segments.select(labels >= 0), np.flatnonzero(labels >= 0)
    else:
        positions = np.arange(len(segments))
    start = 0
    for crops in object_crops(image, segments, size=classifier.side, padding=setup.padding, batch=_CROPS_AT_ONCE):
        rows = positions[start : start + len(crops)]
        start += len(crops)
        if tuning.labels is None:
            labels[rows] = _sure(crops, classifier, tuning.least_share)
            left_out[UNSURE] += int((labels[rows] < 0).sum())
        yield from (
            (int(row), crop, int(labels[row])) for row, crop in zip(rows, crops, strict=True) if labels[row] >= 0
        )


def _sure(crops: np.ndarray, classifier: CropClassifier, least_share: float) -> np.ndarray:
    """Return the CLIP class of each crop, or -1 if its probability is below `least_share`."""
    with torch.inference_mode():
        shares, found = classifier(classifier.pixels(list(crops))).softmax(dim=1).max(dim=1)
    return np.asarray(torch.where(shares >= least_share, found, -1).cpu().numpy())
