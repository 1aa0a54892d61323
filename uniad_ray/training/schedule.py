"""The learning rate of a step, from its number alone."""

from __future__ import annotations

import math

from uniad_ray.perception.student import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of a step: linear warm-up, then constant, or half a cosine that would reach 0 after the last.

    Args:
        config: How the student is trained.
        step: Steps done before this one.
    """
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    if config.schedule == "constant":
        return config.learning_rate
    share = (step - config.warm_up) / max(1, config.iterations - config.warm_up)
    return config.learning_rate * (1 + math.cos(math.pi * share)) / 2
