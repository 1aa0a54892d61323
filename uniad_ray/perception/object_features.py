"""What the segments of an image look like: the mean of feature fields over each."""

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
    """

    segments: str
    fields: tuple[str, ...] = Field(min_length=1)


class ObjectFeatures:
    """Means of feature fields over segments, in place of the image encoder of CLIP on crops (TMUAD, section III-B.2).

    Provides `{name}/vectors`: an array an image, float32, shape (n, C), C being the channels of all fields together.
    Each field's mean has unit length, so that no field drowns another.
    """

    config_model: ClassVar[type[ObjectFeaturesConfig]] = ObjectFeaturesConfig

    def __init__(self, name: str, config: ObjectFeaturesConfig, device: str) -> None:  # noqa: ARG002
        """Features; they learn nothing and load nothing."""
        self.name = name
        self.config = config
        self.needs = frozenset([config.segments, *config.fields])
        self.provides = self.fields_of(name, config)

    @classmethod
    def fields_of(cls, name: str, config: ObjectFeaturesConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/vectors"})

    def perceive(self, perception: Perception) -> dict[str, list[np.ndarray]]:
        """Averages over every segment of every image by itself."""
        vectors = []
        for row, segments in enumerate(perception.segments[self.config.segments]):
            fields = [perception.fields[name][row] for name in self.config.fields]
            vectors.append(np.concatenate([_unit_means(field, segments) for field in fields], axis=1))
        return {f"{self.name}/vectors": vectors}

    def lineage(self) -> dict[str, Any]:
        """All that changes the vectors."""
        return self.config.model_dump(mode="json")


def _unit_means(field: torch.Tensor, segments: Segments) -> np.ndarray:
    """The mean of a field, shape (C, h, w), over each segment, of unit length: float32, shape (n, C)."""
    channels, height, width = field.shape
    if not len(segments):
        return np.zeros((0, channels), dtype=np.float32)
    masks = torch.from_numpy(segments.masks().astype(np.float32))
    # Cells count by the share of them that lies in the segment, so that one smaller than a cell has a mean too.
    shares = functional.adaptive_avg_pool2d(masks, (height, width)).flatten(1)
    shares = shares / shares.sum(dim=1, keepdim=True)
    means = shares @ field.cpu().contiguous().flatten(1).T
    return np.asarray(functional.normalize(means, dim=1).numpy())
