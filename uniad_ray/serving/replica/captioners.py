"""What an endpoint asks for texts: of what a bundle was fitted with, that which answers within a request's time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import numpy as np
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from uniad_ray.errors import CaptionError
from uniad_ray.perception.base import AskingExtractor
from uniad_ray.perception.captions.base import Captioner
from uniad_ray.perception.captions.engine import CaptionEngineConfig
from uniad_ray.perception.captions.server import CaptionServer, CaptionServerConfig
from uniad_ray.serving.settings import EngineSettings


class DeployedCaptioner:
    """Asks the replicas with vLLM that belong to this application."""

    def __init__(
        self,
        name: str,
        config: CaptionEngineConfig,
        handle: DeploymentHandle,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
    ) -> None:
        """Prepares; nothing is asked yet.

        Args:
            name: The extractor, for messages.
            config: The model of the bundle.
            handle: The deployment.
            loop: Where the handle may be called.
            timeout: Seconds to wait for an answer.
        """
        self._name = name
        self._config = config.model_dump(mode="json")
        self._handle = handle
        self._loop = loop
        self._timeout = timeout

    def captions(self, row_keys: Sequence[str], images: np.ndarray, prompt: str) -> list[str]:  # noqa: ARG002
        """Asks for all images at once; see `Captioner`. To be called by other threads than that of the loop.

        Raises:
            CaptionError: No replica answers in time, or the model gives no text.
        """
        asked = asyncio.run_coroutine_threadsafe(self._ask(images, prompt), self._loop)
        try:
            return asked.result(self._timeout)
        except (TimeoutError, FutureTimeoutError, RayServeException, RayError) as error:
            asked.cancel()
            raise CaptionError(f"{self._name}: the deployed model does not answer: {type(error).__name__}") from error

    def lineage(self) -> dict[str, Any]:
        """The model."""
        return dict(self._config)

    async def _ask(self, images: np.ndarray, prompt: str) -> list[str]:
        calls = [self._handle.caption.remote(self._config, image, prompt) for image in images]
        return [str(text) for text in await asyncio.gather(*calls)]


def choose_captioner(
    extractor: AskingExtractor,
    engine: EngineSettings,
    deployed: DeploymentHandle | None,
    loop: asyncio.AbstractEventLoop,
) -> Captioner | str:
    """What an extractor asks here, or why there is nothing to ask.

    Args:
        extractor: Of a bundle.
        engine: What the operator decided.
        deployed: The deployment with vLLM, if there is one.
        loop: Where it may be called.
    """
    fitted = extractor.config.captioner
    if engine.kind == "none":
        return "no engine is configured"
    if engine.kind == "deployment":
        if not isinstance(fitted, CaptionEngineConfig):
            return f"the bundle's texts are of kind {fitted.kind}, which is no model that can be deployed"
        if deployed is None:
            return "no engine is deployed"
        return DeployedCaptioner(extractor.name, fitted, deployed, loop, engine.deadline_seconds)
    model = engine.model or getattr(fitted, "model", None)
    url = engine.url or getattr(fitted, "url", None)
    if url is None or model is None:
        return f"the bundle's texts are of kind {fitted.kind}; engine.url and engine.model name no server to ask"
    kept = (
        fitted if isinstance(fitted, CaptionServerConfig) else CaptionServerConfig(kind="server", url=url, model=model)
    )
    # Who waits for a verdict is served better by one without texts than by a repetition.
    changes = {"url": url, "model": model, "retries": 0, "timeout": engine.deadline_seconds}
    return CaptionServer(extractor.name, kept.model_copy(update=changes))
