"""Measure the time of every extractor and expert per image."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uniad_ray.experts.base import Expert
from uniad_ray.perception.base import Perception
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.complete import score_complete

WARM_UP_IMAGES = 2
"""Number of first images to skip; they include one-time setup."""


@dataclass(frozen=True)
class StageTimes:
    """Times of all stages over several images.

    Attributes:
        seconds: Seconds per image, by stage (`extractor NAME` or `expert NAME`).
        stages_of: Stages that each expert needs, by expert, including its own.
    """

    seconds: Mapping[str, Sequence[float]]
    stages_of: Mapping[str, Sequence[str]]

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds per image, by stage."""
        return {stage: statistics.median(values) for stage, values in self.seconds.items()}


def time_stages(
    pipeline: PerceptionPipeline, experts: Mapping[str, Expert], images: Iterable[tuple[str, np.ndarray]]
) -> StageTimes:
    """Score images one at a time and measure each stage.

    Args:
        pipeline: Fitted extractors.
        experts: Fitted experts by name.
        images: Pairs of row key and image, uint8, shape (H, W, 3). At least three; the first two are warm-up.
    """
    seconds: dict[str, list[float]] = {}
    for number, (row_key, image) in enumerate(images):
        for stage, value in _stages(pipeline, experts, Perception([row_key], image[None])):
            if number >= WARM_UP_IMAGES:
                seconds.setdefault(stage, []).append(value)
    stages_of = {
        name: [*(f"extractor {each.name}" for each in pipeline.extractors_for(expert.needs)), f"expert {name}"]
        for name, expert in experts.items()
    }
    return StageTimes(seconds, stages_of)


def _stages(
    pipeline: PerceptionPipeline, experts: Mapping[str, Expert], perception: Perception
) -> Iterator[tuple[str, float]]:
    wanted = frozenset(field for expert in experts.values() for field in expert.needs)
    for extractor in pipeline.extractors_for(wanted):
        started = time.perf_counter()
        perception = pipeline.extend(perception, perception.names | extractor.provides)
        yield f"extractor {extractor.name}", time.perf_counter() - started
    for name, expert in experts.items():
        started = time.perf_counter()
        score_complete(expert, perception)
        yield f"expert {name}", time.perf_counter() - started
