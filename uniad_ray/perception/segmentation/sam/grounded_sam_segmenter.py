"""Open-vocabulary segmentation: boxes of given classes from Grounding DINO, masks from SAM (Grounded SAM)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.grids import grid_size
from uniad_ray.perception.segmentation.sam.grounding_dino import GroundingDino, load_grounding_dino
from uniad_ray.perception.segmentation.sam.sam_encoder import load_sam
from uniad_ray.perception.segments import MOST_SEGMENTS, Segments
from uniad_ray.perception.text.descriptions import check_class_names
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights.pretrained_networks import lineage_with, loading


class GroundedSamSegmenterConfig(StrictModel):
    """Options of the segmenter.

    Attributes:
        embedding: Field with SAM's image embedding.
        sam_weights: SAM's folder; must be the same as for the embedding.
        weights: Grounding DINO's folder.
        classes: Classes to detect; case-insensitive, without full stops.
        least_score: Minimum score of a box (exclusive).
        box_overlap: Of boxes with a larger intersection over union than this, only the one with the highest score is
            kept.
        boxes_per_batch: Number of boxes to decode together; each takes 4 MiB.
        side: Longest side of the masks, pixels; they have the aspect ratio of the image.
        most_segments: Maximum number of segments per image; those with the highest scores are kept.
    """

    embedding: str
    sam_weights: ModelFolderSource
    weights: ModelFolderSource
    classes: tuple[str, ...] = ()
    least_score: float = Field(default=0.3, ge=0.0, lt=1.0)
    box_overlap: float = Field(default=0.7, ge=0.0, le=1.0)
    boxes_per_batch: int = Field(default=64, ge=1, le=1024)
    side: int = Field(default=256, ge=16, le=1024)
    most_segments: int = Field(default=MOST_SEGMENTS, ge=1, le=MOST_SEGMENTS)

    @field_validator("classes")
    @classmethod
    def _usable_and_distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        check_class_names([name.strip().lower() for name in classes])
        if dotted := [name for name in classes if "." in name]:
            raise ValueError(f"{dotted[0]!r} has a full stop, which separates classes for Grounding DINO; remove it")
        return classes


class GroundedSamSegmenter:
    """Named segments of the objects of given classes (TMUAD, algorithm 1).

    Provides `{name}/segments`: segments with masks whose longest side is `side` pixels; the confidence is the score of
    the box.
    """

    config_model: ClassVar[type[GroundedSamSegmenterConfig]] = GroundedSamSegmenterConfig

    def __init__(self, name: str, config: GroundedSamSegmenterConfig, device: str) -> None:
        """Loads Grounding DINO and SAM, or reuses them if this process has loaded them already.

        Raises:
            ConfigError: There are no classes or too many for Grounding DINO, or transformers is not installed.
            WeightsError: A folder is missing or holds another kind of network.
        """
        if not config.classes:
            raise ConfigError(
                f"{name}: there are no classes; list them in extractors.{name}.config.classes, or set classes to a "
                "list or to the name of one, such as mvtec-loco"
            )
        self.name = name
        self.config = config
        self.needs = frozenset({config.embedding})
        self.provides = self.fields_of(name, config)
        place = torch.device(device)
        self._weights = resolve_folder(config.weights)
        with loading(name, type(self).__name__, config.weights.uri):
            network, processor = load_grounding_dino(self._weights, place)
        self._sam_weights = resolve_folder(config.sam_weights)
        with loading(name, type(self).__name__, config.sam_weights.uri):
            self._sam = load_sam(self._sam_weights, place)
        self._detector = GroundingDino(network, processor, config.classes, place)

    @classmethod
    def fields_of(cls, name: str, config: GroundedSamSegmenterConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields; loads no weights."""
        return frozenset({f"{name}/segments"})

    def extract(self, perception: Perception) -> dict[str, list[Segments]]:
        """Segments each image independently."""
        images = zip(perception.images, perception.fields[self.config.embedding], strict=True)
        return {f"{self.name}/segments": [self._segments(image, embedding[None]) for image, embedding in images]}

    def lineage(self) -> dict[str, Any]:
        """Both sets of weights with their digests, and all options that affect the segments."""
        sam = {"uri": self._sam_weights.uri, "sha256": self._sam_weights.sha256}
        return {**lineage_with(self.config, self._weights), "sam_weights": sam}

    def _segments(self, image: np.ndarray, embedding: torch.Tensor) -> Segments:
        size = (image.shape[0], image.shape[1])
        mask_size = grid_size(size, self.config.side)
        found = self._detector.detect(
            image, self.config.least_score, self.config.box_overlap, self.config.most_segments
        )
        masks = np.zeros((len(found.boxes), *mask_size), dtype=bool)
        for start in range(0, len(masks), self.config.boxes_per_batch):
            rows = slice(start, start + self.config.boxes_per_batch)
            masks[rows] = (self._sam.masks_in(found.boxes[rows], embedding, size, mask_size) > 0).cpu().numpy()
        names = [self.config.classes[number] for number in found.classes.tolist()]
        return Segments.of(masks, found.scores.numpy(), names)
