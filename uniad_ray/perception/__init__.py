"""What frozen networks say of a batch of images.

This package defines the contract of an extractor. Each family of extractors is a subpackage.
"""

from __future__ import annotations

from uniad_ray.perception.base import (
    AskingExtractor,
    Extractor,
    LearnedExtractor,
    Perception,
    State,
    StatefulExtractor,
    TrainedExtractor,
)
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.perception.segments import Segments

__all__ = [
    "AskingExtractor",
    "Extractor",
    "LearnedExtractor",
    "Perception",
    "PerceptionPipeline",
    "Segments",
    "State",
    "StatefulExtractor",
    "TrainedExtractor",
]
