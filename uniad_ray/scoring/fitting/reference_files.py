"""The reference images of a bundle, with the scores that a loaded bundle must reproduce."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from safetensors.numpy import save as save_safetensors

from uniad_ray.errors import FitError
from uniad_ray.experts.base import Expert
from uniad_ray.perception.base import Perception
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.bundles.reference_images import ReferenceScores
from uniad_ray.scoring.complete import score_complete
from uniad_ray.scoring.fitting.perceptions import PerceptionSource

REFERENCE_IMAGES: Final = 2
"""Number of images stored in a bundle with their scores, to verify the scores on loading."""


def reference_files(
    source: PerceptionSource, pipeline: PerceptionPipeline, experts: Mapping[str, Expert], indices: Sequence[int]
) -> dict[str, bytes]:
    """Score a few images with the final experts, held-out images first, and encode them as files of the bundle.

    Args:
        source: The normal images.
        pipeline: The fitted extractors; texts of a vision-language model are stored with the images.
        experts: The fitted experts by name.
        indices: The images that the experts were fitted on.

    Raises:
        FitError: No image can be decoded.
    """
    rows = source.rows
    seen = set(indices)
    order = sorted(range(len(rows)), key=lambda index: (index in seen, rows[index].row_key))[:REFERENCE_IMAGES]
    asked = frozenset(name for extractor in pipeline.asking for name in extractor.provides)
    wanted = asked.union(*(expert.needs for expert in experts.values()))
    perceptions = list(source.extract(order, wanted))
    if not perceptions:
        raise FitError("the reference images cannot be decoded; repair the training images and ingest them again")
    images = np.concatenate([perception.images for perception in perceptions])
    if pipeline.detailed:
        # A bundle has no image files: the reference images are enlarged, here and when they are checked.
        perceptions = [_without_files(pipeline, perception, wanted) for perception in perceptions]
    raw = {
        name: tuple(value for perception in perceptions for value in _raw_scores(expert, perception))
        for name, expert in experts.items()
    }
    texts = {
        name: tuple(text for perception in perceptions for text in _texts(perception, name))
        for extractor in pipeline.asking
        for name in sorted(extractor.provides)
    }
    row_keys = tuple(key for perception in perceptions for key in perception.row_keys)
    scores = ReferenceScores(row_keys=row_keys, raw=raw, texts=texts)
    document = json.dumps(scores.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"
    return {"reference.safetensors": save_safetensors({"images": images}), "reference.json": document.encode()}


def _without_files(pipeline: PerceptionPipeline, perception: Perception, wanted: frozenset[str]) -> Perception:
    detailed = frozenset(name for extractor in pipeline.detailed for name in extractor.provides)
    known = replace(perception.restricted(perception.names - detailed), originals={})
    return pipeline.extend(known, wanted)


def _raw_scores(expert: Expert, perception: Perception) -> list[float | None]:
    found = score_complete(expert, perception)
    return [None if row in found.left_out else float(score) for row, score in enumerate(found.scores)]


def _texts(perception: Perception, name: str) -> list[str | None]:
    lacking = perception.missing.get(name, {})
    texts = perception.texts.get(name, [""] * len(perception))
    return [None if key in lacking else text for key, text in zip(perception.row_keys, texts, strict=True)]
