"""Pretrained networks that turn texts into vectors: sentence models and CLIP's text tower (UniAD, eq. 12)."""

from __future__ import annotations

import contextlib
import importlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from safetensors import safe_open
from torch.nn import functional

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError, WeightsError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights import ResolvedWeights, first_line

_CACHED_TEXTS: Final = 4096
_POSITIONS: Final = "embeddings.position_embedding.weight"

Encode = Callable[[str], np.ndarray]
"""Gives the vector of a text: float32, shape (D,), of length 1."""


class PretrainedEncoderConfig(StrictModel):
    """Which texts, and which network.

    Attributes:
        text: The field of texts.
        weights: The network's folder, with configuration, tokenizer and parameters.
    """

    text: str = "description/text"
    weights: ModelFolderSource


class _PretrainedEncoder(ABC):
    """A frozen network that reads one text at a time, so that a vector does not depend on the batch.

    Provides `{name}/embedding`: float32, shape (N, D, 1, 1), of length 1. The 4,096 texts read last are remembered.
    """

    config_model: ClassVar[type[PretrainedEncoderConfig]] = PretrainedEncoderConfig

    def __init__(self, name: str, config: PretrainedEncoderConfig, device: str) -> None:
        """Loads the network, or shares it where this process has it already.

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
        # The lock keeps two threads from loading the same network.
        with _LOADING:
            try:
                self._encode = self._load(self._weights, self._device)
            except ModuleNotFoundError as error:
                package = (error.name or "").replace("_", "-")
                raise ConfigError(
                    f"{name}: {type(self).__name__} needs the package {package}; run: pip install {package}"
                ) from error
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                raise WeightsError(
                    f"{config.weights.uri} cannot be loaded by {type(self).__name__}: {first_line(error)}; check that "
                    "the folder is of such a network"
                ) from error

    @classmethod
    def fields_of(cls, name: str, config: PretrainedEncoderConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields, without loading weights."""
        return frozenset({f"{name}/embedding"})

    @staticmethod
    @abstractmethod
    def _load(weights: ResolvedWeights, device: torch.device) -> Encode:
        """Loads the network once a process."""

    def perceive(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Encodes one text an image; see the class for shapes."""
        vectors = np.stack([self._encode(text) for text in perception.texts[self.config.text]])
        return {f"{self.name}/embedding": torch.from_numpy(vectors)[:, :, None, None].to(self._device)}

    def lineage(self) -> dict[str, Any]:
        """The weights with their digest, and all that changes the numbers."""
        document: dict[str, Any] = self.config.model_dump(mode="json")
        document["weights"] = {"uri": self._weights.uri, "sha256": self._weights.sha256, "trained": True}
        return document


class SentenceEncoder(_PretrainedEncoder):
    """A sentence-transformers model, such as MiniLM or Sentence-T5, with its own pooling.

    A text is cut at the model's own limit (`max_seq_length`: 256 tokens of MiniLM and Sentence-T5).
    """

    @staticmethod
    @lru_cache(maxsize=4)
    def _load(weights: ResolvedWeights, device: torch.device) -> Encode:
        library = importlib.import_module("sentence_transformers")
        with _no_progress_bar(importlib.import_module("transformers.utils.logging")):
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

        return lru_cache(maxsize=_CACHED_TEXTS)(encode)


class ClipTextEncoder(_PretrainedEncoder):
    """CLIP's text tower with its projection (UniAD eq. 12 with Long-CLIP).

    A text is cut where the checkpoint's position embeddings end, whatever its configuration says: after 77 tokens in
    CLIP, 248 in Long-CLIP, the marks of beginning and end among them.
    """

    @staticmethod
    @lru_cache(maxsize=4)
    def _load(weights: ResolvedWeights, device: torch.device) -> Encode:
        library = importlib.import_module("transformers")
        folder = str(weights.path)
        positions = _number_of_positions(Path(folder))
        options = {"local_files_only": True, "trust_remote_code": False}
        config = library.CLIPTextConfig.from_pretrained(folder, **options)
        config.max_position_embeddings = positions
        tokenizer = library.CLIPTokenizer.from_pretrained(folder, **options)
        with _no_progress_bar(library.logging), _errors_only(library.logging):
            network, report = library.CLIPTextModelWithProjection.from_pretrained(
                folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
            )
        if report["missing_keys"]:
            raise ValueError(f"it lacks {', '.join(sorted(report['missing_keys'])[:3])}")
        network.eval().requires_grad_(False).to(device)

        def encode(text: str) -> np.ndarray:
            tokens = tokenizer(text, truncation=True, max_length=positions, return_tensors="pt").to(device)
            with torch.inference_mode():
                vector = functional.normalize(network(**tokens).text_embeds[0], dim=0)
            return np.asarray(vector.cpu().numpy())

        return lru_cache(maxsize=_CACHED_TEXTS)(encode)


_LOADING = threading.Lock()


@contextlib.contextmanager
def _no_progress_bar(logging: Any) -> Iterator[None]:
    """Keeps transformers from drawing a bar on stderr while it loads."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _errors_only(logging: Any) -> Iterator[None]:
    """Keeps transformers from listing, as a warning, the image tower's parameters that are not asked for."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _number_of_positions(folder: Path) -> int:
    """The length of the text tower's position embeddings."""
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118
                if key.endswith(_POSITIONS) and "vision" not in key:
                    return int(file.get_slice(key).get_shape()[0])
    raise ValueError("it has no position embeddings of a text tower")
