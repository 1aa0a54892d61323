"""vLLM replicas that caption images for the experts that need texts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from ray import serve
from ray.serve import Application

from uniad_ray.perception.captions.base import Captions
from uniad_ray.perception.captions.engine import CaptionEngine, CaptionEngineConfig
from uniad_ray.perception.missing import Missing
from uniad_ray.serving.settings import EngineSettings

_IMAGES = 8
"""Maximum number of images per call of vLLM, which may process fewer at a time (`max_num_seqs`)."""

Question = tuple[str, np.ndarray, str]


class VllmDeployment:
    """Captions single images, batched across concurrent calls.

    The first call loads the model. A replica holds one model: another model replaces it in memory.
    """

    def __init__(self) -> None:
        """Prepare batching; no model is loaded yet."""

        async def caption_together(questions: list[Question]) -> Captions:
            return await asyncio.to_thread(caption_all, questions)

        batched = serve.batch(max_batch_size=_IMAGES, batch_wait_timeout_s=0.01)
        self._batched: Callable[[Question], Awaitable[str | Missing]] = batched(caption_together)

    async def caption(self, config: dict[str, Any], image: np.ndarray, prompt: str) -> str | Missing:
        """Caption one image.

        Args:
            config: CaptionEngineConfig as JSON types.
            image: uint8, shape (H, W, 3), RGB.
            prompt: Prompt of the model.

        Raises:
            CaptionError: The engine fails.
            ConfigError: vLLM is not installed or does not support the machine.
        """
        return await self._batched((json.dumps(config, sort_keys=True), image, prompt))


def caption_all(questions: list[Question]) -> Captions:
    """Caption images, in order; images with the same model and prompt are processed together."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row, (config, _, prompt) in enumerate(questions):
        groups.setdefault((config, prompt), []).append(row)
    texts: dict[int, str | Missing] = {}
    for (config, prompt), rows in groups.items():
        engine = CaptionEngine("engine", CaptionEngineConfig.model_validate_json(config))
        images = [questions[row][1] for row in rows]
        texts.update(zip(rows, engine.captions([str(row) for row in rows], images, prompt), strict=True))
    return [texts[row] for row in range(len(questions))]


def engine_application(engine: EngineSettings) -> Application:
    """Build the vLLM deployment."""
    deployment = serve.deployment(
        VllmDeployment,
        name="VllmDeployment",
        num_replicas=engine.replicas,
        max_ongoing_requests=4 * _IMAGES,
        max_queued_requests=4 * _IMAGES,
        ray_actor_options={"num_cpus": 1, "num_gpus": engine.gpus},
    )
    return deployment.bind()
