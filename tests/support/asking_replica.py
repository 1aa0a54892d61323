"""A replica that requests captions as the scoring replicas do, from threads outside its event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from ray.serve.handle import DeploymentHandle

from uniad_ray.errors import CaptionError
from uniad_ray.perception.captions.engine import CaptionEngineConfig
from uniad_ray.serving.replica.captioners import DeployedCaptioner


class AskingReplica:
    """Deployment that is bound to the caption deployment."""

    def __init__(self, engine: DeploymentHandle) -> None:
        self._engine = engine

    async def ask(self, config: dict[str, Any], images: np.ndarray, prompt: str, timeout: float) -> list[str] | str:
        """Returns the captions, or the message of the error."""
        chosen = CaptionEngineConfig.model_validate(config)
        captioner = DeployedCaptioner("caption", chosen, self._engine, asyncio.get_running_loop(), timeout)
        try:
            return await asyncio.to_thread(captioner.captions, ["x"] * len(images), images, prompt)
        except CaptionError as error:
            return str(error)
