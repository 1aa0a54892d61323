"""Choose the captioner of an endpoint: a server or deployment that is fast enough for requests."""

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
from uniad_ray.perception.captions.base import Captioner, Captions
from uniad_ray.perception.captions.engine import CaptionEngineConfig
from uniad_ray.perception.captions.server import CaptionServer, CaptionServerConfig
from uniad_ray.serving.settings import EngineSettings


class DeployedCaptioner:
    """Captioner that uses the vLLM replicas of this application."""

    def __init__(
        self,
        name: str,
        config: CaptionEngineConfig,
        handle: DeploymentHandle,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
    ) -> None:
        """Keep the arguments; nothing is requested yet.

        Args:
            name: Name of the extractor, for messages.
            config: Model of the bundle.
            handle: Handle of the vLLM deployment.
            loop: Event loop on which the handle may be called.
            timeout: Seconds to wait for the texts.
        """
        self._name = name
        self._config = config.model_dump(mode="json")
        self._handle = handle
        self._loop = loop
        self._timeout = timeout
        self.longest_side: int | None = config.longest_side

    def captions(self, row_keys: Sequence[str], images: Sequence[np.ndarray], prompt: str) -> Captions:  # noqa: ARG002
        """Request all texts at once; see `Captioner`. Call this from a thread other than the event loop's.

        Raises:
            CaptionError: No replica responds in time.
        """
        asked = asyncio.run_coroutine_threadsafe(self._ask(images, prompt), self._loop)
        try:
            return asked.result(self._timeout)
        except (TimeoutError, FutureTimeoutError, RayServeException, RayError) as error:
            asked.cancel()
            reason = type(error).__name__
            raise CaptionError(f"{self._name}: the deployed model does not respond: {reason}") from error

    def lineage(self) -> dict[str, Any]:
        """Return the configuration of the model."""
        return dict(self._config)

    async def _ask(self, images: Sequence[np.ndarray], prompt: str) -> Captions:
        calls = [self._handle.caption.remote(self._config, image, prompt) for image in images]
        return list(await asyncio.gather(*calls))


def choose_captioner(
    extractor: AskingExtractor,
    engine: EngineSettings,
    deployed: DeploymentHandle | None,
    loop: asyncio.AbstractEventLoop,
) -> Captioner | str:
    """Choose the captioner of an extractor.

    Args:
        extractor: Extractor of a bundle that needs texts.
        engine: Settings of the vision-language model.
        deployed: Handle of the vLLM deployment, or None.
        loop: Event loop on which the handle may be called.

    Returns:
        The captioner, or the reason why there is none.
    """
    fitted = extractor.config.captioner
    if engine.kind == "none":
        return "no engine is configured"
    if engine.kind == "deployment":
        if not isinstance(fitted, CaptionEngineConfig):
            return f"the bundle was fitted with a captioner of kind {fitted.kind}, which cannot be deployed"
        if deployed is None:
            return "no engine is deployed"
        return DeployedCaptioner(extractor.name, fitted, deployed, loop, engine.deadline_seconds)
    model = engine.model or getattr(fitted, "model", None)
    url = engine.url or getattr(fitted, "url", None)
    if url is None or model is None:
        return f"the bundle was fitted with a captioner of kind {fitted.kind}; set engine.url and engine.model"
    kept = (
        fitted if isinstance(fitted, CaptionServerConfig) else CaptionServerConfig(kind="server", url=url, model=model)
    )
    # A verdict without texts is better than a retry: a request is waiting.
    changes = {"url": url, "model": model, "retries": 0, "timeout": engine.deadline_seconds}
    return CaptionServer(extractor.name, kept.model_copy(update=changes))
