"""CLIP image features of the crops of an image's segments (TMUAD, section III-B.2)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.objects.crops import object_crops
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights.pretrained_networks import lineage_with, load_network, load_processor, loading
from uniad_ray.perception.weights.sources import ResolvedWeights


class ClipObjectFeaturesConfig(StrictModel):
    """Options of the features.

    Attributes:
        segments: Field with the segments.
        weights: CLIP's folder.
        padding: Black margin around an object, as a fraction of the longer side of its box.
        crops_per_batch: Crops of one image in one forward pass; can change the last bits of the features.
    """

    segments: str
    weights: ModelFolderSource
    padding: float = Field(default=0.1, ge=0.0, le=2.0)
    crops_per_batch: int = Field(default=64, ge=1, le=1024)


class ClipObjectFeatures:
    """Projected CLIP image features of each segment's crop; pixels outside of the segment are black.

    Provides `{name}/vectors`: one array per image, float32, shape (n, D), unit length. Text features of the same CLIP
    are in the same space (`ClipNamer`).
    """

    config_model: ClassVar[type[ClipObjectFeaturesConfig]] = ClipObjectFeaturesConfig

    def __init__(self, name: str, config: ClipObjectFeaturesConfig, device: str) -> None:
        """Loads CLIP's image tower, or reuses it if this process has loaded it already.

        Raises:
            ConfigError: transformers is not installed.
            WeightsError: The folder is missing or holds another kind of network.
        """
        self.name = name
        self.config = config
        self.needs = frozenset({config.segments})
        self.provides = self.fields_of(name, config)
        self._device = torch.device(device)
        self._weights = resolve_folder(config.weights)
        with loading(name, type(self).__name__, config.weights.uri):
            self._network, self._processor = _load_clip_images(self._weights, self._device)

    @classmethod
    def fields_of(cls, name: str, config: ClipObjectFeaturesConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields; loads no weights."""
        return frozenset({f"{name}/vectors"})

    def extract(self, perception: Perception) -> dict[str, list[np.ndarray]]:
        """Encodes the crops of each image independently."""
        images = zip(perception.images, perception.segments[self.config.segments], strict=True)
        return {f"{self.name}/vectors": [self._vectors(image, segments) for image, segments in images]}

    def lineage(self) -> dict[str, Any]:
        """The weights with their digest, and all options that affect the vectors."""
        return lineage_with(self.config, self._weights)

    def _vectors(self, image: np.ndarray, segments: Segments) -> np.ndarray:
        network = self._network.config
        found = [np.zeros((0, network.projection_dim), dtype=np.float32)]
        for crops in object_crops(
            image,
            segments,
            size=network.image_size,
            padding=self.config.padding,
            batch=self.config.crops_per_batch,
        ):
            prepared = self._processor(images=list(crops), input_data_format="channels_last", return_tensors="pt")
            with torch.inference_mode():
                vectors = self._network(prepared["pixel_values"].to(self._device)).image_embeds
            found.append(functional.normalize(vectors, dim=1).cpu().numpy())
        return np.concatenate(found)


@lru_cache(maxsize=2)
def _load_clip_images(weights: ResolvedWeights, device: torch.device) -> tuple[Any, Any]:
    network = load_network("CLIPVisionModelWithProjection", weights, device)
    return network, load_processor("CLIPImageProcessor", weights)
