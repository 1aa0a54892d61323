"""Small fit configurations for tests: the real networks and experts, at fast sizes."""

from __future__ import annotations

from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig


def small_config(*overrides: str) -> FitConfig:
    """The embedded profile at 64 pixels, with only a small patch memory."""
    return load_config(
        "embedded",
        [
            "image_size=[64, 64]",
            "map_size=16",
            "batch_size=4",
            "expert_set=patch",
            "experts.patch.config.memory_size=200",
            "calibration.false_positive_rate=0.1",
            *overrides,
        ],
    )
