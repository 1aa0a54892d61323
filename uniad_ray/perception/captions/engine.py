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
    # Another process would import vLLM again, and could outlive this one.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Nothing about an inspection leaves the machine.
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # It writes to stdout, where a verb with `--json` has its document.
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class CaptionEngineConfig(StrictModel):
    """vLLM in each worker, with the extra `vlm`.

    Attributes:
        kind: vLLM in each worker, with the extra `vlm`.
        weights: The model's folder.
        max_tokens: Most tokens of an answer.
        dtype: Type of the weights in memory; `auto` takes the folder's.
        max_model_len: Most tokens of image, prompt and answer together; null takes the model's own bound.
        max_num_seqs: Most images that are computed together.
        gpu_memory_utilization: Share of the GPU's memory that the engine takes.
        enforce_eager: Start sooner and answer more slowly, without compiled graphs.
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
    """Asks a model that vLLM runs, with temperature 0; started when it is first asked, once a process and weights.

    vLLM computes images together, so that now and then two answers to one image differ by a word between batches.
    """

    def __init__(self, name: str, config: CaptionEngineConfig) -> None:
        """Finds the model's folder; the engine is not started, since who plans has no use for one.

        Args:
            name: The extractor, for messages.
            config: The model and how it is run.

        Raises:
            WeightsError: The folder is missing or has another digest.
        """
        self._name = name
        self._config = config
        self._weights = resolve_folder(config.weights)

    def captions(self, row_keys: Sequence[str], images: np.ndarray, prompt: str) -> list[str]:  # noqa: ARG002
        """Asks for all images at once; see `Captioner`.

        Raises:
            CaptionError: The engine fails, or an answer has no text.
            ConfigError: vLLM is not installed or does not fit the machine.
            WeightsError: The folder is of another kind of model.
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
                f"{self._name}: vLLM cannot answer: {first_line(error)}; check max_model_len, and that "
                f"{config.weights.uri} is a model that sees images"
            ) from error
        texts = [answer.outputs[0].text.strip()[:MAX_CHARACTERS] for answer in answers]
        if not all(texts):
            raise CaptionError(
                f"{self._name}: {config.weights.uri} answers without a text; raise max_tokens, or take a model that is "
                "tuned for chat"
            )
        return texts

    def lineage(self) -> dict[str, Any]:
        """The weights with their digest, and all that changes the texts."""
        document = self._config.model_dump(mode="json", include={"kind", "max_tokens", "dtype", "max_model_len"})
        found = {"uri": self._weights.uri, "sha256": self._weights.sha256, "trained": True}
        return {**document, "weights": found}


def _library(name: str) -> Any:
    """vLLM, imported where it is first needed, since that takes half a minute."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{name}: kind: vllm needs the package {error.name}; run: pip install "uniad-ray[vlm]", or ask a server'
        ) from error
    except ImportError as error:
        raise ConfigError(f"{name}: vLLM does not fit this machine: {first_line(error)}; ask a server") from error


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
    """What is said to the model of an image, uint8 of shape (H, W, 3)."""
    content = [{"type": "image_pil", "image_pil": Image.fromarray(image)}, {"type": "text", "text": prompt}]
    return [{"role": "user", "content": content}]
