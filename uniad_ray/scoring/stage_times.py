"""What each stage of scoring one image takes: every extractor and every expert by itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uniad_ray.experts.base import Expert
from uniad_ray.perception.base import Perception
from uniad_ray.perception.pipeline import PerceptionPipeline

WARM_UP_IMAGES = 2
"""The first images pay for what is set up once, and are not counted."""


@dataclass(frozen=True)
class StageTimes:
    """Times of the stages over several images.

    Attributes:
        seconds: By stage, `extractor NAME` or `expert NAME`, seconds of each image.
        stages_of: By expert, the stages behind it, itself included.
    """

    seconds: Mapping[str, Sequence[float]]
    stages_of: Mapping[str, Sequence[str]]

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds an image by stage."""
        return {stage: statistics.median(values) for stage, values in self.seconds.items()}


def time_stages(
    pipeline: PerceptionPipeline, experts: Mapping[str, Expert], images: Iterable[tuple[str, np.ndarray]]
) -> StageTimes:
    """Scores images one at a time and takes the time of each stage.

    Args:
        pipeline: Fitted extractors.
        experts: Fitted experts by name.
        images: Row key and image, uint8, shape (H, W, 3); more than two, since the first two are not counted.
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
        expert.score(perception)
        yield f"expert {name}", time.perf_counter() - started
