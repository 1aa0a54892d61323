"""Captions by vLLM in this process."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import CaptionError, ConfigError
from uniad_ray.perception.captions.base import MAX_CHARACTERS
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights.pretrained_networks import loading
from uniad_ray.perception.weights.sources import ResolvedWeights, first_line

_ENVIRONMENT: Final = {
    # A second process would import vLLM again and could outlive this one.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # No usage data leaves the machine.
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # vLLM logs to stdout, which `--json` reserves for the JSON document.
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class CaptionEngineConfig(StrictModel):
    """Options of vLLM in each worker; requires the extra `vlm`.

    Attributes:
        kind: vLLM in each worker; requires the extra `vlm`.
        weights: The model's folder.
        max_tokens: Maximum number of tokens of an answer.
        dtype: Dtype of the weights in memory; `auto` uses that of the folder.
        max_model_len: Maximum number of tokens of image, prompt and answer together; null uses the model's limit.
        max_num_seqs: Maximum number of images per batch.
        gpu_memory_utilization: Fraction of the GPU memory for the engine.
        enforce_eager: Disable compiled graphs: faster start, slower answers.
    """

    kind: Literal["vllm"]
    weights: ModelFolderSource
    max_tokens: int = Field(default=512, ge=1, le=4096)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: int | None = Field(default=None, ge=64)
    max_num_seqs: int = Field(default=8, ge=1, le=1024)
    gpu_memory_utilization: float = Field(default=0.9, gt=0.0, le=1.0)
    enforce_eager: bool = False


class CaptionEngine:
    """Runs a vision-language model in vLLM with temperature 0; the engine starts once per process, on first use.

    vLLM batches images, so answers to the same image occasionally differ by a word between batches.
    """

    def __init__(self, name: str, config: CaptionEngineConfig) -> None:
        """Locates the model's folder; planning does not start the engine.

        Args:
            name: Name of the extractor, for messages.
            config: The model and its engine options.

        Raises:
            WeightsError: The folder is missing or has another digest.
        """
        self._name = name
        self._config = config
        self._weights = resolve_folder(config.weights)

    def captions(self, row_keys: Sequence[str], images: np.ndarray, prompt: str) -> list[str]:  # noqa: ARG002
        """Captions all images in one call; see `Captioner`.

        Raises:
            CaptionError: The engine fails, or an answer has no text.
            ConfigError: vLLM is not installed or does not support this machine.
            WeightsError: The folder holds another type of model.
        """
        config = self._config
        with loading(self._name, "vllm", config.weights.uri):
            library = _library(self._name)
            engine = _engine(
                self._weights,
                config.dtype,
                config.max_model_len,
                config.max_num_seqs,
                config.gpu_memory_utilization,
                config.enforce_eager,
            )
        options = library.SamplingParams(temperature=0.0, max_tokens=config.max_tokens, seed=0)
        try:
            answers = engine.chat([_conversation(image, prompt) for image in images], options, use_tqdm=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise CaptionError(
                f"{self._name}: vLLM failed: {first_line(error)}; check max_model_len, and that "
                f"{config.weights.uri} is a vision-language model"
            ) from error
        texts = [answer.outputs[0].text.strip()[:MAX_CHARACTERS] for answer in answers]
        if not all(texts):
            raise CaptionError(
                f"{self._name}: {config.weights.uri} returned an empty answer; raise max_tokens, or use a chat model"
            )
        return texts

    def lineage(self) -> dict[str, Any]:
        """The weights with their digest, and all options that affect the texts."""
        document = self._config.model_dump(mode="json", include={"kind", "max_tokens", "dtype", "max_model_len"})
        found = {"uri": self._weights.uri, "sha256": self._weights.sha256, "trained": True}
        return {**document, "weights": found}


def _library(name: str) -> Any:
    """Imports vLLM on first use, because the import takes half a minute."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{name}: kind: vllm needs the package {error.name}; run: pip install "uniad-ray[vlm]", or use kind: server'
        ) from error
    except ImportError as error:
        raise ConfigError(f"{name}: cannot import vLLM: {first_line(error)}; use kind: server") from error


@lru_cache(maxsize=1)
def _engine(
    weights: ResolvedWeights,
    dtype: str,
    max_model_len: int | None,
    max_num_seqs: int,
    gpu_memory_utilization: float,
    enforce_eager: bool,
) -> Any:
    return importlib.import_module("vllm").LLM(
        model=str(weights.path),
        dtype=dtype,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        gpu_memory_utilization=gpu_memory_utilization,
        enforce_eager=enforce_eager,
        limit_mm_per_prompt={"image": 1, "video": 0},
        enable_prefix_caching=False,
        trust_remote_code=False,
        seed=0,
    )


def _conversation(image: np.ndarray, prompt: str) -> list[dict[str, Any]]:
    """The chat messages for one image: uint8, shape (H, W, 3)."""
    content = [{"type": "image_pil", "image_pil": Image.fromarray(image)}, {"type": "text", "text": prompt}]
    return [{"role": "user", "content": content}]
