"""Features of segments: the mean of feature fields over each segment."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.segments import Segments


class ObjectFeaturesConfig(StrictModel):
    """Options of the features.

    Attributes:
        segments: Field with the segments.
        fields: The feature fields.
        unit_length: Normalise each field's mean to unit length, so that all fields count the same.
    """

    segments: str
    fields: tuple[str, ...] = Field(min_length=1)
    unit_length: bool = True


class ObjectFeatures:
    """Means of feature fields over segments; replaces CLIP's image encoder on crops (TMUAD, section III-B.2).

    Provides `{name}/vectors`: one array per image, float32, shape (n, C); C is the total number of channels of the
    fields.
    """

    config_model: ClassVar[type[ObjectFeaturesConfig]] = ObjectFeaturesConfig

    def __init__(self, name: str, config: ObjectFeaturesConfig, device: str) -> None:  # noqa: ARG002
        """Stores the options; nothing is learned or loaded."""
        self.name = name
        self.config = config
        self.needs = frozenset([config.segments, *config.fields])
        self.provides = self.fields_of(name, config)

    @classmethod
    def fields_of(cls, name: str, config: ObjectFeaturesConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/vectors"})

    def extract(self, perception: Perception) -> dict[str, list[np.ndarray]]:
        """Averages the fields over each segment, image by image."""
        vectors = []
        for row, segments in enumerate(perception.segments[self.config.segments]):
            means = [_means(perception.fields[name][row], segments) for name in self.config.fields]
            if self.config.unit_length:
                means = [functional.normalize(each, dim=1) for each in means]
            vectors.append(torch.cat(means, dim=1).numpy())
        return {f"{self.name}/vectors": vectors}

    def lineage(self) -> dict[str, Any]:
        """All options that affect the vectors."""
        return self.config.model_dump(mode="json")


def _means(field: torch.Tensor, segments: Segments) -> torch.Tensor:
    """The mean of a field, shape (C, h, w), over each segment: float32, shape (n, C)."""
    channels, height, width = field.shape
    if not len(segments):
        return torch.zeros(0, channels)
    masks = torch.from_numpy(segments.masks().astype(np.float32))
    # A cell is weighted by its overlap with the segment: segments smaller than a cell also get a mean.
    shares = functional.adaptive_avg_pool2d(masks, (height, width)).flatten(1)
    shares = shares / shares.sum(dim=1, keepdim=True)
    return shares @ field.cpu().contiguous().flatten(1).T
