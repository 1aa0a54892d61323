"""Networks that compute feature maps: teachers, ViT encoders and the student."""

from __future__ import annotations

from uniad_ray.perception.features.encoders import (
    FeaturePyramid,
    FeaturePyramidConfig,
    TokenEncoder,
    TokenEncoderConfig,
)
from uniad_ray.perception.features.student import Student, StudentConfig

__all__ = ["FeaturePyramid", "FeaturePyramidConfig", "Student", "StudentConfig", "TokenEncoder", "TokenEncoderConfig"]
