"""A tiny student and its teachers, with random weights."""

from __future__ import annotations

from typing import Any

from uniad_ray.config.model import FitConfig
from uniad_ray.perception.features.encoders import FeaturePyramid, FeaturePyramidConfig
from uniad_ray.perception.features.student import StudentConfig
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.perception.weights.sources import WeightSource

TINY_TRAINING = {"iterations": 12, "batch_size": 4, "learning_rate": 0.01, "checkpoint_every": 4, "held_out": 0.2}
LONG_TRAINING = {"iterations": 400, "checkpoint_every": 20}
"""Long enough to be killed during the training."""


def tiny_teachers() -> PerceptionPipeline:
    """A structural teacher with two levels and a logical teacher with one."""
    structural = FeaturePyramidConfig(architecture="test_resnet", weights=WeightSource(uri="random:1"), levels=(1, 2))
    logical = FeaturePyramidConfig(architecture="test_efficientnet", weights=WeightSource(uri="random:2"), levels=(3,))
    return PerceptionPipeline([FeaturePyramid("pyramid", structural, "cpu"), FeaturePyramid("logical", logical, "cpu")])


def tiny_student(training: dict[str, Any] | None = None, **changes: Any) -> StudentConfig:
    """A student of `tiny_teachers`."""
    return StudentConfig.model_validate(
        {
            "architecture": "test_resnet",
            "levels": (1, 2),
            "structural_teacher": ("pyramid/level1", "pyramid/level2"),
            "logical_teacher": "logical/level3",
            **changes,
            "training": TINY_TRAINING | (training or {}) | changes.get("training", {}),
        }
    )


def tiny_fit(**student: Any) -> FitConfig:
    """A fit configuration at 64 pixels with `tiny_teachers` and their student."""

    def pyramid(architecture: str, uri: str, levels: list[int]) -> dict[str, Any]:
        options = {"architecture": architecture, "weights": {"uri": uri}, "levels": levels}
        return {"class": "uniad_ray.perception.features.encoders:FeaturePyramid", "config": options}

    options = tiny_student(**student).model_dump(mode="json", exclude={"seed"})
    return FitConfig.model_validate(
        {
            "name": "tiny",
            "image_size": [64, 64],
            "map_size": 16,
            "extractors": {
                "pyramid": pyramid("test_resnet", "random:1", [1, 2]),
                "logical": pyramid("test_efficientnet", "random:2", [3]),
                "student": {"class": "uniad_ray.perception.features.student:Student", "config": options},
            },
            "experts": {
                "patch": {
                    "class": "uniad_ray.experts.patch.memory:PatchMemory",
                    "config": {"fields": ["student/level1", "student/level2"]},
                }
            },
            "expert_sets": {"patch": ["patch"]},
            "expert_set": "patch",
        }
    )
