"""The application for Ray Serve's own commands.

`serve run uniad_ray.serving.app:build_app bundles=ROOT` takes arguments. `serve build` knows none: with
`uniad_ray.serving.app:application` the settings are those of the file that `UNIAD_RAY_SERVE` names.
"""

# No `from __future__ import annotations` here: Serve reads the type of the builder's argument from its signature.
import os
from typing import Any, Final

from ray.serve import Application

from uniad_ray.serving.gateway import gateway_application
from uniad_ray.serving.replica.deployment import scorer_application
from uniad_ray.serving.settings import ServeSettings
from uniad_ray.serving.settings_file import read_settings

SETTINGS_VARIABLE: Final = "UNIAD_RAY_SERVE"


def build_app(settings: ServeSettings) -> Application:
    """Builds the endpoint from its typed arguments.

    Args:
        settings: What the operator decides; a Serve configuration file gives it as `args`.
    """
    return gateway_application(settings, scorer_application(settings))


def __getattr__(name: str) -> Any:
    """`application`: the endpoint with the settings of the file that `UNIAD_RAY_SERVE` names.

    Raises:
        AttributeError: Another name, or the variable is not set.
        ConfigError: The file cannot be read, or is not as it should be.
    """
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = os.environ.get(SETTINGS_VARIABLE)
    if place is None:
        raise AttributeError(f"{name}: set {SETTINGS_VARIABLE} to a YAML file with the settings, local or s3://")
    return build_app(read_settings(place))
