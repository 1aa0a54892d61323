"""The learning rate of a step, from its number alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol


class Schedule(Protocol):
    """What the learning rate follows from."""

    @property
    def iterations(self) -> int:
        """Steps."""
        ...

    @property
    def learning_rate(self) -> float:
        """Highest learning rate."""
        ...

    @property
    def warm_up(self) -> int:
        """Steps in which the rate grows linearly to its highest."""
        ...

    @property
    def schedule(self) -> Literal["constant", "cosine"]:
        """What comes after them."""
        ...


@dataclass(frozen=True)
class HalfCosine:
    """A rate that falls from its highest to 0 over a number of steps."""

    iterations: int
    learning_rate: float
    warm_up: int = 0
    schedule: Literal["constant", "cosine"] = "cosine"


def learning_rate(config: Schedule, step: int) -> float:
    """Learning rate of a step: linear warm-up, then constant, or half a cosine that would reach 0 after the last.

    Args:
        config: How the rate is to change.
        step: Steps done before this one.
    """
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    if config.schedule == "constant":
        return config.learning_rate
    share = (step - config.warm_up) / max(1, config.iterations - config.warm_up)
    return config.learning_rate * (1 + math.cos(math.pi * share)) / 2
