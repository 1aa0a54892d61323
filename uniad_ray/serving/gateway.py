"""The gateway: the Serve deployment that accepts HTTP requests."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from uniad_ray.archive.stores.s3_client import limit_attempts
from uniad_ray.pipelines.cluster.metrics import RayMetrics
from uniad_ray.serving.asgi import create_api
from uniad_ray.serving.backend import ReplicaBackend
from uniad_ray.serving.http.api import Endpoint
from uniad_ray.serving.http.tracing import make_tracer
from uniad_ray.serving.settings import OF_REPLICAS, STORE_ATTEMPTS, ServeSettings

_REQUESTS_INSIDE = 1000
"""Requests that Serve passes to a gateway; the gateway itself reports overload, as a problem document."""


class Gateway:
    """Accepts HTTP requests and passes images to the scoring replicas."""

    def __init__(self, settings: dict[str, Any], scorer: DeploymentHandle) -> None:
        """Prepare the application.

        Args:
            settings: ServeSettings as JSON types.
            scorer: The scoring deployment.
        """
        limit_attempts(STORE_ATTEMPTS)
        valid, metrics = ServeSettings.model_validate(settings), RayMetrics()
        tracer = None if valid.traces is None else make_tracer(valid.traces)
        self._endpoint = Endpoint(valid, ReplicaBackend(scorer, metrics), metrics, tracer)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application; called by Serve when the replica starts."""
        return create_api(self._endpoint, adds_request_id=False)


def gateway_application(settings: ServeSettings, scorer: Application) -> Application:
    """Build the ingress, bound to the scoring deployment."""
    deployment = serve.deployment(
        serve.ingress()(Gateway),
        name="Gateway",
        num_replicas=settings.gateways,
        max_ongoing_requests=_REQUESTS_INSIDE,
        graceful_shutdown_timeout_s=settings.limits.seconds,
        ray_actor_options={"num_cpus": 0.5, "runtime_env": {"env_vars": OF_REPLICAS}},
    )
    return deployment.bind(settings.model_dump(mode="json"), scorer)
