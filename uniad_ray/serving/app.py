"""Application builder for Ray Serve's own commands.

`serve run uniad_ray.serving.app:build_app bundles=ROOT` takes arguments. `serve build` takes none:
`uniad_ray.serving.app:application` reads its settings from the file named by `UNIAD_RAY_SERVE`.
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
    """Build the endpoint from its typed arguments.

    Args:
        settings: Settings of the endpoint; `args` in a Serve configuration file.
    """
    return gateway_application(settings, scorer_application(settings))


def __getattr__(name: str) -> Any:
    """Build `application` from the settings file named by `UNIAD_RAY_SERVE`.

    Raises:
        AttributeError: The name is not `application`, or the variable is not set.
        ConfigError: The file cannot be read or is invalid.
    """
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = os.environ.get(SETTINGS_VARIABLE)
    if place is None:
        raise AttributeError(f"{name}: set {SETTINGS_VARIABLE} to a YAML file with the settings, local or s3://")
    return build_app(read_settings(place))
