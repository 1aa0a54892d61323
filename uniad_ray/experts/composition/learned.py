"""The composition expert that learns from simulated logical anomalies which measurements matter."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from uniad_ray.experts.composition.composition import Composition, CompositionConfig, padded
from uniad_ray.experts.composition.features import label_features
from uniad_ray.experts.composition.normal_spread import Changes
from uniad_ray.experts.composition.simulated import LabelledParts, altered_labels
from uniad_ray.perception.base import PerceptionStream
from uniad_ray.perception.sampling.image_sample import ImageSample


class LearnedCompositionConfig(CompositionConfig):
    """Options of the learned composition expert, besides those of `Composition`.

    Attributes:
        segments: Fields with segments of the same images; read in the fit, to know what a part is.
        altered: Maximum number of normal images to alter, sampled evenly.
        copies: Number of altered copies of each.
    """

    segments: tuple[str, ...] = Field(min_length=1, max_length=4)
    altered: int = Field(default=40, ge=2, le=1000)
    copies: int = Field(default=2, ge=1, le=100)


class LearnedComposition(Composition):
    """The composition expert, with weights learned from simulated logical anomalies on label maps.

    `Composition` counts every direction of its measurements alike, and most of them say nothing about parts. This
    expert removes, adds, moves, swaps, turns and exchanges parts on the label maps of normal images, as SALAD and CSAD
    do to train their networks. Its distance is the root mean square log-odds of an image for these anomalies.
    """

    config_model: ClassVar[type[LearnedCompositionConfig]] = LearnedCompositionConfig

    def __init__(self, name: str, config: LearnedCompositionConfig) -> None:
        """Creates an unfitted expert."""
        super().__init__(name, config)
        self.needs |= frozenset(config.segments)
        self._options = config

    def fit(self, stream: PerceptionStream) -> None:
        """Learns from normal images in two passes; order and batching of the images have no effect.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: There are fewer than two images, or the shape of a field changes.
        """
        shapes, statistics, images = self._read(stream)
        sample: ImageSample[LabelledParts] = ImageSample(
            min(self._options.altered, self._options.images), self._options.seed
        )
        for perception in stream():
            for row, row_key in enumerate(perception.row_keys):
                if sample.wants(row_key):
                    segments = [perception.segments[name][row] for name in self._options.segments]
                    sample.add(row_key, LabelledParts.of(self._label_maps(perception, row), segments))
        chosen = sample.items()
        rows = {row_key: number for number, row_key in enumerate(images)}
        owners = np.array([rows[row_key] for row_key in chosen])
        before = [
            [padded(features, one.labels) for features, one in zip(images[row_key], statistics, strict=True)]
            for row_key in chosen
        ]
        numbers: list[int] = []
        changes: list[list[np.ndarray]] = [[] for _ in statistics]
        for number, altered in altered_labels(list(chosen.values()), self._options.copies, self._options.seed):
            numbers.append(number)
            for of_map, labels, one, original in zip(changes, altered, statistics, before[number], strict=True):
                of_map.append((label_features(labels, one.labels) - original).ravel())
        of_images = owners[np.array(numbers, dtype=np.int64)]
        self._learn(
            shapes,
            statistics,
            images,
            [
                Changes(np.array(of_map).reshape(len(numbers), original.size), of_images)
                for of_map, original in zip(changes, before[0], strict=True)
            ],
        )
