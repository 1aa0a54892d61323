"""Segments by SAM's automatic mask generation: a grid of points, and the masks that are sure and stable."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import torch
from pydantic import Field
from torchvision.ops import masks_to_boxes, nms

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.segmentation.sam_encoder import load_sam
from uniad_ray.perception.segments import MOST_SEGMENTS, Segments
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights.pretrained_networks import lineage_with, loading

# How far SAM's own mask generation moves the cutoff of the logits.
_SHIFT: Final = 1.0


class SamSegmenterConfig(StrictModel):
    """Options of the segmenter; the defaults are SAM's own where it has them.

    Attributes:
        embedding: Field with SAM's image embedding.
        weights: SAM's folder, the same as that of the embedding.
        points_per_side: Rows and columns of the grid of points.
        points_per_batch: Points that are decoded together; each takes 12 MiB, and the last bits may depend on it.
        predicted_iou: Masks are kept for which SAM predicts at least this intersection over union.
        stability: Masks are kept that have at least this IoU with themselves when their cutoff is moved up and down.
        box_overlap: Of masks whose boxes have more than this IoU, the one with the highest predicted IoU is kept.
        smallest_area: Share of the image below which a mask is left out.
        largest_area: Share of the image above which a mask is left out, such as one of the background.
        side: Side of the masks, pixels.
        most_segments: The most segments of an image; those with the highest predicted IoU are kept.
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
    """Everything in an image, without names; segments may lie in each other (TMUAD, section III-B.2).

    Provides `{name}/segments`: the segments, masks of `side` pixels; confidence is the IoU that SAM predicts.
    """

    config_model: ClassVar[type[SamSegmenterConfig]] = SamSegmenterConfig

    def __init__(self, name: str, config: SamSegmenterConfig, device: str) -> None:
        """Loads SAM, or shares it where this process has it already.

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
        """The names of the provided fields, without loading weights."""
        return frozenset({f"{name}/segments"})

    def extract(self, perception: Perception) -> dict[str, list[Segments]]:
        """Segments every image by itself."""
        size = perception.images.shape[1:3]
        embeddings = perception.fields[self.config.embedding]
        return {f"{self.name}/segments": [self._segments(embedding[None], size) for embedding in embeddings]}

    def lineage(self) -> dict[str, Any]:
        """The weights with their digest, and all that changes the segments."""
        return lineage_with(self.config, self._weights)

    def _segments(self, embedding: torch.Tensor, image_size: tuple[int, int]) -> Segments:
        found = [
            self._usable(*self._sam.masks_at(points, embedding, image_size, self.config.side))
            for points in self._points
        ]
        masks, scores = (torch.cat(each) for each in zip(*found, strict=True))
        # The surest first.
        kept = nms(masks_to_boxes(masks), scores, self.config.box_overlap)[: self.config.most_segments]
        return Segments.of(masks[kept].numpy(), scores[kept].numpy().clip(0.0, 1.0))

    def _usable(self, logits: torch.Tensor, predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Those masks that are sure, stable and of a usable size, with the IoU predicted for each, on the CPU."""
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
    """The middles of side x side equal cells, right and down in 0..1, row by row: shape (side^2, 2)."""
    middles = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(middles, middles, indexing="xy"), dim=-1).reshape(-1, 2)
