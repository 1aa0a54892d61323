"""Replicas with vLLM, which write the texts that experts need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from ray import serve
from ray.serve import Application

from uniad_ray.perception.captions.engine import CaptionEngine, CaptionEngineConfig
from uniad_ray.serving.settings import EngineSettings

_IMAGES = 8
"""Images that are handed to vLLM together; it may compute fewer at a time, see `max_num_seqs`."""

Question = tuple[str, np.ndarray, str]


class VllmDeployment:
    """Writes texts of single images; those that come together are computed together.

    The model is started when it is first asked for. Replicas are for one model: another one takes its place in memory.
    """

    def __init__(self) -> None:
        """Starts no model yet."""

        async def caption_together(questions: list[Question]) -> list[str]:
            return await asyncio.to_thread(caption_all, questions)

        batched = serve.batch(max_batch_size=_IMAGES, batch_wait_timeout_s=0.01)
        self._batched: Callable[[Question], Awaitable[str]] = batched(caption_together)

    async def caption(self, config: dict[str, Any], image: np.ndarray, prompt: str) -> str:
        """The text of one image.

        Args:
            config: A CaptionEngineConfig as JSON types.
            image: uint8, shape (H, W, 3), RGB.
            prompt: What the model is asked.

        Raises:
            CaptionError: The engine fails, or an answer has no text.
            ConfigError: vLLM is not installed or does not fit the machine.
        """
        return await self._batched((json.dumps(config, sort_keys=True), image, prompt))


def caption_all(questions: list[Question]) -> list[str]:
    """Texts of images, in order; those with one model, one prompt and one size are computed together."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}
    for row, (config, image, prompt) in enumerate(questions):
        groups.setdefault((config, prompt, image.shape), []).append(row)
    texts: dict[int, str] = {}
    for (config, prompt, _), rows in groups.items():
        engine = CaptionEngine("engine", CaptionEngineConfig.model_validate_json(config))
        images = np.stack([questions[row][1] for row in rows])
        texts.update(zip(rows, engine.captions([str(row) for row in rows], images, prompt), strict=True))
    return [texts[row] for row in range(len(questions))]


def engine_application(engine: EngineSettings) -> Application:
    """The deployment of vLLM."""
    deployment = serve.deployment(
        VllmDeployment,
        name="VllmDeployment",
        num_replicas=engine.replicas,
        max_ongoing_requests=4 * _IMAGES,
        max_queued_requests=4 * _IMAGES,
        ray_actor_options={"num_cpus": 1, "num_gpus": engine.gpus},
    )
    return deployment.bind()
