"""Captions by vLLM in this process."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError
from uniad_ray.perception.captions.base import Answer, Captions, captions_of, checked
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights.pretrained_networks import loading
from uniad_ray.perception.weights.sources import ResolvedWeights, first_line

ENVIRONMENT: Final = {
    # A second process would import vLLM again and could outlive this one.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # No usage data leaves the machine.
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # vLLM logs to stdout, which `--json` reserves for the JSON document.
    "VLLM_LOGGING_LEVEL": "ERROR",
    # GiB for the cache of keys and values without a GPU; the default of 4 is much for one worker among several.
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
"""Variables of vLLM, set unless the user has set them."""


_DECISIVE: Final = {"kind", "max_tokens", "dtype", "max_model_len", "longest_side"}


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
        longest_side: Maximum height and width of an image, pixels; larger ones are reduced in their aspect ratio.
    """

    kind: Literal["vllm"]
    weights: ModelFolderSource
    max_tokens: int = Field(default=512, ge=1, le=4096)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: int | None = Field(default=None, ge=64)
    max_num_seqs: int = Field(default=8, ge=1, le=1024)
    gpu_memory_utilization: float = Field(default=0.9, gt=0.0, le=1.0)
    enforce_eager: bool = False
    longest_side: int = Field(default=1280, ge=32, le=4096)


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
        self.longest_side: int | None = config.longest_side

    def captions(self, row_keys: Sequence[str], images: Sequence[np.ndarray], prompt: str) -> Captions:  # noqa: ARG002
        """Captions all images in one call; see `Captioner`.

        Raises:
            CaptionError: The engine fails.
            ConfigError: vLLM is not installed or does not support this machine.
            WeightsError: The folder holds another type of model.
        """
        return captions_of(self.answers(images, prompt))

    def answers(
        self,
        images: Sequence[np.ndarray],
        prompt: str,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
    ) -> list[Answer]:
        """Asks about all images in one call; see `VisionLanguageModel`.

        Raises:
            ConfigError: vLLM is not installed or does not support this machine.
            WeightsError: The folder holds another type of model.
        """
        config = self._config
        with loading(self._name, "vllm", config.weights.uri):
            library = _library(self._name)
            engine = _engine(self._weights, json.dumps(engine_arguments(config), sort_keys=True))
        structure: dict[str, Any] = {}
        if schema is not None:
            parameters = importlib.import_module("vllm.sampling_params").StructuredOutputsParams
            structure = {"structured_outputs": parameters(json=json.dumps(schema))}
        options = library.SamplingParams(
            temperature=0.0, max_tokens=max_tokens or config.max_tokens, seed=0, **structure
        )
        conversations = [_conversation(image, prompt) for image in images]
        try:
            return self._chat(engine, conversations, options)
        except (OSError, ValueError, RuntimeError) as error:
            if len(images) < 2:
                return [Answer("", "rejected", self._failure(error))] * len(images)
        # One image that vLLM rejects must not cost the others their captions.
        return [self._single(engine, conversation, options) for conversation in conversations]

    def _single(self, engine: Any, conversation: Any, options: Any) -> Answer:
        try:
            return self._chat(engine, [conversation], options)[0]
        except (OSError, ValueError, RuntimeError) as error:
            return Answer("", "rejected", self._failure(error))

    def _chat(self, engine: Any, conversations: Sequence[Any], options: Any) -> list[Answer]:
        started = time.perf_counter()
        outputs = engine.chat(list(conversations), options, use_tqdm=False)
        seconds = (time.perf_counter() - started) / len(conversations)
        answers = []
        for output in outputs:
            written = output.outputs[0]
            answer = Answer(
                text=written.text.strip(),
                prompt_tokens=_length(output, "prompt_token_ids"),
                tokens=_length(written, "token_ids"),
                seconds=seconds,
            )
            is_cut = getattr(written, "finish_reason", None) == "length"
            answers.append(checked(answer, f"{self._name}: {self._config.weights.uri}", is_cut))
        return answers

    def _failure(self, error: Exception) -> str:
        return (
            f"{self._name}: vLLM failed: {first_line(error)}; check max_model_len, and that "
            f"{self._config.weights.uri} is a vision-language model"
        )

    def lineage(self) -> dict[str, Any]:
        """The weights with their digest, and all options that affect the texts."""
        document = self._config.model_dump(mode="json", include=_DECISIVE)
        found = {"uri": self._weights.uri, "sha256": self._weights.sha256, "trained": True}
        return {**document, "weights": found}


def _length(record: Any, name: str) -> int | None:
    """Number of tokens in an attribute of vLLM's output."""
    tokens = getattr(record, name, None)
    return None if tokens is None else len(tokens)


def _library(name: str) -> Any:
    """Imports vLLM on first use, because the import takes half a minute."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{name}: kind: vllm needs the package {error.name}; run: pip install "uniad-ray[vlm]", or use kind: server'
        ) from error
    except ImportError as error:
        raise ConfigError(f"{name}: cannot import vLLM: {first_line(error)}; use kind: server") from error


def engine_arguments(config: CaptionEngineConfig) -> dict[str, Any]:
    """The arguments of vLLM's engine, except the model."""
    return {
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "enforce_eager": config.enforce_eager,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "enable_prefix_caching": False,
        "trust_remote_code": False,
        # A weak model would otherwise fill its answer with blanks between two tokens of the JSON.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "seed": 0,
    }


@lru_cache(maxsize=1)
def _engine(weights: ResolvedWeights, arguments: str) -> Any:
    """Starts the engine, with its arguments as JSON."""
    return importlib.import_module("vllm").LLM(model=str(weights.path), **json.loads(arguments))


def _conversation(image: np.ndarray, prompt: str) -> list[dict[str, Any]]:
    """The chat messages for one image: uint8, shape (H, W, 3)."""
    content = [{"type": "image_pil", "image_pil": Image.fromarray(image)}, {"type": "text", "text": prompt}]
    return [{"role": "user", "content": content}]
