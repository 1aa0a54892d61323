"""The application builder: `serve run uniad_ray.serving.app:build_app bundles=ROOT`."""

from __future__ import annotations

from ray.serve import Application

from uniad_ray.serving.gateway import gateway_application
from uniad_ray.serving.replica import scorer_application
from uniad_ray.serving.settings import ServeSettings


def build_app(settings: ServeSettings) -> Application:
    """Builds the endpoint from its typed arguments.

    Args:
        settings: What the operator decides; `serve build` and a Serve configuration file give it as `args`.
    """
    return gateway_application(settings, scorer_application(settings))
