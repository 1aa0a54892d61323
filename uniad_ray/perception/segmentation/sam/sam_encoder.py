"""The Segment Anything Model: image encoder (an extractor) and mask decoder (for segmenters) (TMUAD, section III-B)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights.pretrained_networks import lineage_with, load_network, load_processor, loading
from uniad_ray.perception.weights.sources import ResolvedWeights


class SamEncoderConfig(StrictModel):
    """Options of the encoder.

    Attributes:
        weights: SAM's folder; segmenters that use the embedding must use the same folder.
    """

    weights: ModelFolderSource


class SamEncoder:
    """SAM's image encoder, by far its slowest part; all segmenters share its output.

    Provides `{name}/embedding`: float32, shape (N, C, h, w); 256 x 64 x 64 for the published networks.
    """

    config_model: ClassVar[type[SamEncoderConfig]] = SamEncoderConfig

    def __init__(self, name: str, config: SamEncoderConfig, device: str) -> None:
        """Loads SAM, or reuses it if this process has loaded it already.

        Raises:
            ConfigError: transformers is not installed.
            WeightsError: The folder is missing or holds another kind of network.
        """
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)
        self._weights = resolve_folder(config.weights)
        with loading(name, type(self).__name__, config.weights.uri):
            self._sam = load_sam(self._weights, torch.device(device))

    @classmethod
    def fields_of(cls, name: str, config: SamEncoderConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields; loads no weights."""
        return frozenset({f"{name}/embedding"})

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Encodes one image at a time; see the class for shapes."""
        return {f"{self.name}/embedding": torch.cat([self._sam.embedding(image) for image in perception.images])}

    def lineage(self) -> dict[str, Any]:
        """The weights with their digest."""
        return lineage_with(self.config, self._weights)


@dataclass(frozen=True)
class Sam:
    """SAM in transformers.

    Attributes:
        network: `SamModel`.
        processor: `SamImageProcessor`.
        device: Device of the network.
    """

    network: Any
    processor: Any
    device: torch.device

    def embedding(self, image: np.ndarray) -> torch.Tensor:
        """The embedding of an image (uint8, shape (H, W, 3)) for the decoder: float32, shape (1, C, h, w)."""
        prepared = self.processor(images=[image], input_data_format="channels_last", return_tensors="pt")
        with torch.inference_mode():
            found: torch.Tensor = self.network.get_image_embeddings(prepared["pixel_values"].to(self.device))
        return found

    def masks_at(
        self, points: torch.Tensor, embedding: torch.Tensor, image_size: tuple[int, int], mask_size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decodes three masks for each of p points: SAM's smallest, middle and largest interpretation.

        Args:
            points: Position (x, y) of each point, in 0..1, shape (p, 2).
            embedding: Embedding of one image, shape (1, C, h, w).
            image_size: Height and width of the image, pixels.
            mask_size: Height h and width w of the masks, pixels.

        Returns:
            Logits of the masks, float32, shape (p, 3, h, w), and the predicted IoU of each, shape (p, 3).
        """
        return self._decode("input_points", points[None, :, None], embedding, image_size, mask_size)

    def masks_in(
        self, boxes: torch.Tensor, embedding: torch.Tensor, image_size: tuple[int, int], mask_size: tuple[int, int]
    ) -> torch.Tensor:
        """Decodes one mask for each of p boxes.

        Args:
            boxes: Left, top, right and bottom, in 0..1, shape (p, 4).
            embedding: Embedding of one image, shape (1, C, h, w).
            image_size: Height and width of the image, pixels.
            mask_size: Height h and width w of the masks, pixels.

        Returns:
            Logits of the masks, float32, shape (p, h, w).
        """
        logits, _ = self._decode("input_boxes", boxes[None], embedding, image_size, mask_size, multimask_output=False)
        return logits[:, 0]

    def _decode(
        self,
        kind: str,
        prompts: torch.Tensor,
        embedding: torch.Tensor,
        image_size: tuple[int, int],
        mask_size: tuple[int, int],
        **options: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # The longer side of the image fills the network's input; prompts are in pixels of that input.
        scale = self.processor.size["longest_edge"] / max(image_size)
        height, width = (int(length * scale + 0.5) for length in image_size)
        pixels = prompts * torch.tensor([width, height] * (prompts.shape[-1] // 2), dtype=torch.float32)
        with torch.inference_mode():
            found = self.network(
                image_embeddings=embedding.to(self.device), **{kind: pixels.to(self.device)}, **options
            )
            (logits,) = self.processor.post_process_masks(
                found.pred_masks, [mask_size], [(height, width)], binarize=False
            )
        return logits, found.iou_scores[0]


@lru_cache(maxsize=2)
def load_sam(weights: ResolvedWeights, device: torch.device) -> Sam:
    """Loads SAM, once per process; call within `loading`."""
    return Sam(load_network("SamModel", weights, device), load_processor("SamImageProcessor", weights), device)
