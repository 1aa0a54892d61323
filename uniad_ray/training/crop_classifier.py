"""CLIP as a classifier of crops: its image tower before the fixed texts of the classes (TMUAD, section IV-B)."""

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
from uniad_ray.perception.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.pretrained_networks import load_network, load_processor, loading
from uniad_ray.perception.text_encoders import ClipTextEncoder, PretrainedEncoderConfig
from uniad_ray.perception.weights import ResolvedWeights

_SCALE = "logit_scale"


def class_logits(vectors: torch.Tensor, texts: torch.Tensor, scale: float) -> torch.Tensor:
    """How much each crop is like the text of each class: cosines times CLIP's scale (CLIP, section 2.3).

    Args:
        vectors: Image features with projection, float32, shape (N, D), of any length.
        texts: Text features with projection, float32, shape (K, D), of length 1.
        scale: The exponential of CLIP's `logit_scale`.

    Returns:
        float32, shape (N, K); their softmax are the probabilities of the classes (CLIP, section 3.1).
    """
    return scale * functional.normalize(vectors, dim=1) @ texts.T


def class_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the classes' probabilities, averaged over crops.

    Of CLIP's symmetric loss this is the half of the images: with few classes a batch holds many crops of one text,
    which the half of the texts would tell apart.

    Args:
        logits: float32, shape (N, K).
        classes: int64, shape (N,), in 0..K - 1.

    Returns:
        A scalar.
    """
    return functional.cross_entropy(logits, classes)


class CropClassifier(nn.Module):
    """The probabilities of some classes for crops, as `ClipObjectFeatures` and `ClipNamer` see them.

    Attributes:
        weights: Where CLIP came from.
        side: Side of the crops, pixels.
    """

    def __init__(self, name: str, source: ModelFolderSource, texts: Sequence[str], device: str) -> None:
        """Loads a CLIP of its own, frozen, and encodes the texts once.

        Args:
            name: Of the perceiver, for messages.
            source: CLIP's folder.
            texts: One a class.
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
        """Lets the last blocks of the image tower, its last norm and its projection be trained.

        Raises:
            ConfigError: The tower has fewer blocks.
        """
        tower = self.network.vision_model
        layers = tower.encoder.layers
        if blocks > len(layers):
            raise ConfigError(f"tuning.blocks is {blocks}; the image tower of {self.weights.uri} has {len(layers)}")
        for module in (*layers[len(layers) - blocks :], tower.post_layernorm, self.network.visual_projection):
            module.requires_grad_(True)

    def pixels(self, crops: Sequence[np.ndarray]) -> torch.Tensor:
        """What the network sees of N crops.

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
