"""Pretrained text encoders: sentence-transformers models and CLIP's text tower (UniAD, eq. 12)."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from safetensors import safe_open
from torch.nn import functional

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights.pretrained_networks import (
    LOCAL_ONLY,
    lineage_with,
    load_network,
    load_processor,
    loading,
    no_progress_bar,
    one_at_a_time,
)
from uniad_ray.perception.weights.sources import ResolvedWeights

_CACHED_TEXTS: Final = 4096
_POSITIONS: Final = "embeddings.position_embedding.weight"

Encode = Callable[[str], np.ndarray]
"""Encodes one text: float32, shape (D,), unit length."""


class PretrainedEncoderConfig(StrictModel):
    """Options of a pretrained text encoder.

    Attributes:
        text: Field with the texts.
        weights: The network's folder, with configuration, tokenizer and parameters.
    """

    text: str = "description/text"
    weights: ModelFolderSource


class _PretrainedEncoder(ABC):
    """A frozen network that encodes one text at a time: vectors do not depend on the batch.

    Provides `{name}/embedding`: float32, shape (N, D, 1, 1), unit length. The last 4,096 texts are cached.
    """

    config_model: ClassVar[type[PretrainedEncoderConfig]] = PretrainedEncoderConfig

    def __init__(self, name: str, config: PretrainedEncoderConfig, device: str) -> None:
        """Loads the network, or reuses it if this process has loaded it already.

        Raises:
            ConfigError: The package that runs the network is not installed.
            WeightsError: The folder is missing or holds another kind of network.
        """
        self.name = name
        self.config = config
        self.needs = frozenset({config.text})
        self.provides = self.fields_of(name, config)
        self._device = torch.device(device)
        self._weights = resolve_folder(config.weights)
        with loading(name, type(self).__name__, config.weights.uri):
            self._encode = self._load(self._weights, self._device)

    @classmethod
    def fields_of(cls, name: str, config: PretrainedEncoderConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields; loads no weights."""
        return frozenset({f"{name}/embedding"})

    @staticmethod
    @abstractmethod
    def _load(weights: ResolvedWeights, device: torch.device) -> Encode:
        """Loads the network, once per process."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of n texts, n at least 1: float32, shape (n, D), unit length."""
        return np.stack([self._encode(text) for text in texts])

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Encodes one text per image; see the class for shapes."""
        vectors = torch.from_numpy(self.encode(perception.texts[self.config.text]))
        return {f"{self.name}/embedding": vectors[:, :, None, None].to(self._device)}

    def lineage(self) -> dict[str, Any]:
        """The weights with their digest, and all options that affect the vectors."""
        return lineage_with(self.config, self._weights)


class SentenceEncoder(_PretrainedEncoder):
    """A sentence-transformers model, such as MiniLM or Sentence-T5, with its own pooling.

    Texts are truncated to the model's limit (`max_seq_length`: 256 tokens for MiniLM and Sentence-T5).
    """

    @staticmethod
    @lru_cache(maxsize=4)
    def _load(weights: ResolvedWeights, device: torch.device) -> Encode:
        library = importlib.import_module("sentence_transformers")
        with no_progress_bar():
            network = library.SentenceTransformer(
                str(weights.path),
                device=str(device),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )

        def encode(text: str) -> np.ndarray:
            vector = network.encode(text, normalize_embeddings=True, show_progress_bar=False)
            return np.asarray(vector, dtype=np.float32)

        return lru_cache(maxsize=_CACHED_TEXTS)(one_at_a_time(encode))


class ClipTextEncoder(_PretrainedEncoder):
    """CLIP's text tower with its projection (UniAD eq. 12 with Long-CLIP).

    Texts are truncated to the number of position embeddings in the checkpoint, whatever its configuration says: 77
    tokens for CLIP and 248 for Long-CLIP, including the start and end tokens.
    """

    @staticmethod
    @lru_cache(maxsize=4)
    def _load(weights: ResolvedWeights, device: torch.device) -> Encode:
        library = importlib.import_module("transformers")
        positions = _number_of_positions(Path(str(weights.path)))
        config = library.CLIPTextConfig.from_pretrained(str(weights.path), **LOCAL_ONLY)
        config.max_position_embeddings = positions
        tokenizer = load_processor("CLIPTokenizer", weights)
        network = load_network("CLIPTextModelWithProjection", weights, device, config=config)

        def encode(text: str) -> np.ndarray:
            tokens = tokenizer(text, truncation=True, max_length=positions, return_tensors="pt").to(device)
            with torch.inference_mode():
                vector = functional.normalize(network(**tokens).text_embeds[0], dim=0)
            return np.asarray(vector.cpu().numpy())

        return lru_cache(maxsize=_CACHED_TEXTS)(one_at_a_time(encode))


def _number_of_positions(folder: Path) -> int:
    """The number of position embeddings of the text tower."""
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118
                if key.endswith(_POSITIONS) and "vision" not in key:
                    return int(file.get_slice(key).get_shape()[0])
    raise ValueError("it has no position embeddings of a text tower")
