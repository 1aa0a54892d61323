r"""A plug-in expert that compares the mean colour of an image with that of normal images.

Run this after `make demo` to combine it with a built-in expert; no profile is needed:

    export PYTHONPATH=examples
    uniad-ray fit demo/archive --bundles bundles \
        --set experts.colour.class=own_expert:MeanColour \
        --set "expert_sets.own=[patch, colour]" --set expert_set=own
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

import numpy as np

import uniad_ray as ur


class MeanColourConfig(ur.StrictModel):
    """Options, the keys of `experts.colour.config`."""

    smallest_deviation: float = 0.5


class MeanColour:
    """Stores mean and deviation of the mean colour of normal images."""

    config_model = MeanColourConfig
    mean: np.ndarray
    deviation: np.ndarray

    def __init__(self, name: str, config: MeanColourConfig) -> None:
        """Creates an unfitted expert. It reads only the image, so `needs` is empty."""
        self.name, self.config, self.needs = name, config, frozenset[str]()

    def fit(self, stream: Callable[[], Iterable[ur.Perception]]) -> None:
        """Learns from one pass over the normal images."""
        colours = np.concatenate([self._colours(perception) for perception in stream()])
        self.mean, self.deviation = colours.mean(axis=0), colours.std(axis=0).clip(self.config.smallest_deviation)

    def score(self, perception: ur.Perception) -> ur.Evidence:
        """Scores N images by the channel with the largest deviation."""
        deviations = np.abs(self._colours(perception) - self.mean) / self.deviation
        scores = deviations.max(axis=1).astype(np.float32)
        names = np.array(["red", "green", "blue"])[deviations.argmax(axis=1)]
        reasons = [[f"mean {name}: {score:.1f} deviations off"] for name, score in zip(names, scores, strict=True)]
        return ur.Evidence(scores, maps=None, reasons=reasons)

    def state(self) -> ur.State:
        """The fitted state, as stored in the bundle."""
        return ur.State(arrays={"mean": self.mean, "deviation": self.deviation})

    @classmethod
    def from_state(cls, name: str, config: MeanColourConfig, state: ur.State) -> Self:
        """Restores the expert from a bundle."""
        expert = cls(name, config)
        expert.mean, expert.deviation = state.arrays["mean"], state.arrays["deviation"]
        return expert

    @staticmethod
    def _colours(perception: ur.Perception) -> np.ndarray:
        return np.asarray(perception.images.mean(axis=(1, 2)))
