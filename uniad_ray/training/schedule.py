"""The learning rate of a step, as a function of its number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol


class Schedule(Protocol):
    """Options that determine the learning rate."""

    @property
    def iterations(self) -> int:
        """Number of steps."""
        ...

    @property
    def learning_rate(self) -> float:
        """Maximum learning rate."""
        ...

    @property
    def warm_up(self) -> int:
        """Number of steps in which the rate grows linearly to its maximum."""
        ...

    @property
    def schedule(self) -> Literal["constant", "cosine"]:
        """Schedule after the warm-up."""
        ...


@dataclass(frozen=True)
class HalfCosine:
    """Half-cosine decay from the maximum rate to 0."""

    iterations: int
    learning_rate: float
    warm_up: int = 0
    schedule: Literal["constant", "cosine"] = "cosine"


def learning_rate(config: Schedule, step: int) -> float:
    """Learning rate of a step: linear warm-up, then constant, or half a cosine that reaches 0 after the last step.

    Args:
        config: Options of the schedule.
        step: Number of steps before this one.
    """
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    if config.schedule == "constant":
        return config.learning_rate
    share = (step - config.warm_up) / max(1, config.iterations - config.warm_up)
    return config.learning_rate * (1 + math.cos(math.pi * share)) / 2
