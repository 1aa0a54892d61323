"""Typed configuration: strict pydantic models, YAML profiles, overrides.

`loading` reads profiles and applies overrides.
"""

from __future__ import annotations

from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig

__all__ = ["FitConfig", "StrictModel"]
