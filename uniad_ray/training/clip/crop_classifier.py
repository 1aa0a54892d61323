"""CLIP as a classifier of crops: its image tower with the fixed texts of the classes (TMUAD, section IV-B)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from uniad_ray.errors import ConfigError, WeightsError
from uniad_ray.perception.text.encoders import ClipTextEncoder, PretrainedEncoderConfig
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights.pretrained_networks import load_network, load_processor, loading
from uniad_ray.perception.weights.sources import ResolvedWeights

_SCALE = "logit_scale"


def class_logits(vectors: torch.Tensor, texts: torch.Tensor, scale: float) -> torch.Tensor:
    """Similarity of each crop to the text of each class: cosine times CLIP's scale (CLIP, section 2.3).

    Args:
        vectors: Image features after projection, float32, shape (N, D), of any length.
        texts: Text features after projection, float32, shape (K, D), of length 1.
        scale: The exponential of CLIP's `logit_scale`.

    Returns:
        float32, shape (N, K); their softmax gives the class probabilities (CLIP, section 3.1).
    """
    return scale * functional.normalize(vectors, dim=1) @ texts.T


def class_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the class probabilities, averaged over crops.

    This is the image half of CLIP's symmetric loss. With few classes, a batch holds many crops of the same text, and
    the text half would push them apart.

    Args:
        logits: float32, shape (N, K).
        classes: int64, shape (N,), in 0..K - 1.

    Returns:
        A scalar.
    """
    return functional.cross_entropy(logits, classes)


class CropClassifier(nn.Module):
    """Class probabilities of crops, with the same inputs as `ClipObjectFeatures` and `ClipNamer`.

    Attributes:
        weights: Source of the CLIP weights.
        side: Side of the crops, pixels.
    """

    def __init__(self, name: str, source: ModelFolderSource, texts: Sequence[str], device: str) -> None:
        """Loads a separate, frozen CLIP and encodes the texts once.

        Args:
            name: Name of the extractor, for messages.
            source: Folder of CLIP.
            texts: One text per class.
            device: Torch device.

        Raises:
            ConfigError: transformers is not installed.
            WeightsError: The folder is missing or holds another kind of network.
        """
        super().__init__()
        self.weights = resolve_folder(source)
        self._device = torch.device(device)
        encoder = ClipTextEncoder(name, PretrainedEncoderConfig(weights=source), device)
        with loading(name, type(self).__name__, source.uri):
            self.network: Any = load_network("CLIPVisionModelWithProjection", self.weights, self._device)
            self._processor = load_processor("CLIPImageProcessor", self.weights)
        self.side = int(self.network.config.image_size)
        self._scale = _scale(self.weights)
        self._texts: torch.Tensor
        self.register_buffer("_texts", torch.from_numpy(encoder.encode(texts)).to(self._device), persistent=False)

    def thaw(self, blocks: int) -> None:
        """Makes the last blocks of the image tower, its last norm and its projection trainable.

        Raises:
            ConfigError: The image tower has fewer blocks.
        """
        tower = self.network.vision_model
        layers = tower.encoder.layers
        if blocks > len(layers):
            raise ConfigError(f"tuning.blocks is {blocks}; the image tower of {self.weights.uri} has {len(layers)}")
        for module in (*layers[len(layers) - blocks :], tower.post_layernorm, self.network.visual_projection):
            module.requires_grad_(True)

    def pixels(self, crops: Sequence[np.ndarray]) -> torch.Tensor:
        """Preprocesses N crops for the network.

        Args:
            crops: Each uint8, shape (side, side, 3), RGB.

        Returns:
            float32, shape (N, 3, side, side), on the device.
        """
        prepared = self._processor(images=list(crops), input_data_format="channels_last", return_tensors="pt")
        return torch.as_tensor(prepared["pixel_values"]).to(self._device)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The logits of `class_logits`: float32, shape (N, K)."""
        return class_logits(self.network(pixels).image_embeds.float(), self._texts, self._scale)


def _scale(weights: ResolvedWeights) -> float:
    for path in sorted(Path(str(weights.path)).glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if _SCALE in file.keys():  # noqa: SIM118
                return math.exp(float(file.get_tensor(_SCALE)))
    raise WeightsError(f"{weights.uri} has no {_SCALE}; tune a whole CLIP, not one of its towers")
