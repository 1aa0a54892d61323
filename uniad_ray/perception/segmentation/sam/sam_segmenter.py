"""SAM's automatic mask generation: a grid of points, filtered to confident and stable masks."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import torch
from pydantic import Field
from torchvision.ops import masks_to_boxes, nms

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.grids import grid_size
from uniad_ray.perception.segmentation.sam.sam_encoder import load_sam
from uniad_ray.perception.segments import MOST_SEGMENTS, Segments
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights.pretrained_networks import lineage_with, loading

# Shift of the logit cutoff for the stability score, as in SAM's own mask generation.
_SHIFT: Final = 1.0


class SamSegmenterConfig(StrictModel):
    """Options of the segmenter; the defaults are SAM's own, if SAM has the option.

    Attributes:
        embedding: Field with SAM's image embedding.
        weights: SAM's folder; must be the same as for the embedding.
        points_per_side: Rows and columns of the grid of points.
        points_per_batch: Number of points to decode together; each takes 12 MiB. Can change the last bits of the masks.
        predicted_iou: Minimum predicted intersection over union of a mask.
        stability: Minimum stability of a mask: the IoU of its versions with a raised and a lowered logit cutoff.
        box_overlap: Of masks with a larger box IoU than this, only the one with the highest predicted IoU is kept.
        smallest_area: Minimum area of a mask, as a fraction of the image.
        largest_area: Maximum area of a mask, as a fraction of the image; lower it to drop the background.
        side: Longest side of the masks, pixels; they have the aspect ratio of the image.
        most_segments: Maximum number of segments per image; those with the highest predicted IoU are kept.
    """

    embedding: str
    weights: ModelFolderSource
    points_per_side: int = Field(default=32, ge=1, le=64)
    points_per_batch: int = Field(default=64, ge=1, le=1024)
    predicted_iou: float = Field(default=0.88, ge=0.0, le=1.0)
    stability: float = Field(default=0.95, ge=0.0, le=1.0)
    box_overlap: float = Field(default=0.7, ge=0.0, le=1.0)
    smallest_area: float = Field(default=0.001, ge=0.0, lt=1.0)
    largest_area: float = Field(default=1.0, gt=0.0, le=1.0)
    side: int = Field(default=256, ge=16, le=512)
    most_segments: int = Field(default=MOST_SEGMENTS, ge=1, le=MOST_SEGMENTS)


class SamSegmenter:
    """Segments everything in an image, without names; segments may be nested (TMUAD, section III-B.2).

    Provides `{name}/segments`: segments with masks whose longest side is `side` pixels; the confidence is the IoU
    predicted by SAM.
    """

    config_model: ClassVar[type[SamSegmenterConfig]] = SamSegmenterConfig

    def __init__(self, name: str, config: SamSegmenterConfig, device: str) -> None:
        """Loads SAM, or reuses it if this process has loaded it already.

        Raises:
            ConfigError: transformers is not installed.
            WeightsError: The folder is missing or holds another kind of network.
        """
        self.name = name
        self.config = config
        self.needs = frozenset({config.embedding})
        self.provides = self.fields_of(name, config)
        self._weights = resolve_folder(config.weights)
        with loading(name, type(self).__name__, config.weights.uri):
            self._sam = load_sam(self._weights, torch.device(device))
        self._points = torch.split(_point_grid(config.points_per_side), config.points_per_batch)

    @classmethod
    def fields_of(cls, name: str, config: SamSegmenterConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields; loads no weights."""
        return frozenset({f"{name}/segments"})

    def extract(self, perception: Perception) -> dict[str, list[Segments]]:
        """Segments each image independently."""
        size = perception.images.shape[1:3]
        embeddings = perception.fields[self.config.embedding]
        return {f"{self.name}/segments": [self._segments(embedding[None], size) for embedding in embeddings]}

    def lineage(self) -> dict[str, Any]:
        """The weights with their digest, and all options that affect the segments."""
        return lineage_with(self.config, self._weights)

    def _segments(self, embedding: torch.Tensor, image_size: tuple[int, int]) -> Segments:
        mask_size = grid_size(image_size, self.config.side)
        found = [self._usable(*self._sam.masks_at(points, embedding, image_size, mask_size)) for points in self._points]
        masks, scores = (torch.cat(each) for each in zip(*found, strict=True))
        # By descending confidence.
        kept = nms(masks_to_boxes(masks), scores, self.config.box_overlap)[: self.config.most_segments]
        return Segments.of(masks[kept].numpy(), scores[kept].numpy().clip(0.0, 1.0))

    def _usable(self, logits: torch.Tensor, predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Filters masks by predicted IoU, stability and area; returns masks and predicted IoUs on the CPU."""
        logits, predicted = logits.flatten(0, 1), predicted.flatten()
        areas, smaller, larger = ((logits > cutoff).float().mean(dim=(1, 2)) for cutoff in (0.0, _SHIFT, -_SHIFT))
        usable = (
            (predicted >= self.config.predicted_iou)
            & (smaller >= self.config.stability * larger)
            & (areas >= self.config.smallest_area)
            & (areas <= self.config.largest_area)
        )
        return (logits[usable] > 0.0).cpu(), predicted[usable].cpu()


def _point_grid(side: int) -> torch.Tensor:
    """The centres (x, y) of side x side equal cells, in 0..1, row by row: shape (side^2, 2)."""
    middles = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(middles, middles, indexing="xy"), dim=-1).reshape(-1, 2)
