"""What Serve runs in a process that takes requests."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from uniad_ray.archive.stores.s3_client import limit_attempts
from uniad_ray.serving.asgi import create_api
from uniad_ray.serving.backend import ReplicaBackend
from uniad_ray.serving.http.api import Endpoint
from uniad_ray.serving.settings import OF_REPLICAS, STORE_ATTEMPTS, ServeSettings

_REQUESTS_INSIDE = 1000
"""Serve hands a gateway as many; what is too much the gateway says itself, as a problem document."""


class Gateway:
    """Speaks HTTP; the replicas behind `scorer` score."""

    def __init__(self, settings: dict[str, Any], scorer: DeploymentHandle) -> None:
        """Prepares the application.

        Args:
            settings: A ServeSettings as JSON types.
            scorer: The scoring deployment.
        """
        limit_attempts(STORE_ATTEMPTS)
        self._endpoint = Endpoint(ServeSettings.model_validate(settings), ReplicaBackend(scorer))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve when the replica starts."""
        return create_api(self._endpoint, adds_request_id=False)


def gateway_application(settings: ServeSettings, scorer: Application) -> Application:
    """The ingress, bound to the scoring deployment."""
    deployment = serve.deployment(
        serve.ingress()(Gateway),
        name="Gateway",
        num_replicas=settings.gateways,
        max_ongoing_requests=_REQUESTS_INSIDE,
        graceful_shutdown_timeout_s=settings.limits.seconds,
        ray_actor_options={"num_cpus": 0.5, "runtime_env": {"env_vars": OF_REPLICAS}},
    )
    return deployment.bind(settings.model_dump(mode="json"), scorer)
