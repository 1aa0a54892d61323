"""A network that notes which processes it runs in, and can end all but the first, as lack of memory would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import torch

from uniad_ray.perception.base import Perception
from uniad_ray.perception.features.encoders import FeaturePyramid, FeaturePyramidConfig


class SolitaryPyramidConfig(FeaturePyramidConfig):
    """Options of the network.

    Attributes:
        marker: File of the process ids, one line per batch.
        ends: How many batches of other processes end them.
    """

    marker: str
    ends: int = 0


class SolitaryPyramid(FeaturePyramid):
    """The real pyramid, with a note of its processes."""

    config_model: ClassVar[type[SolitaryPyramidConfig]] = SolitaryPyramidConfig
    config: SolitaryPyramidConfig

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        own = str(os.getpid())
        with Path(self.config.marker).open("a+") as marker:
            marker.write(f"{own}\n")
            marker.seek(0)
            processes = marker.read().split()
        others = [process for process in processes if process != processes[0]]
        if own in others and len(others) <= self.config.ends:
            os._exit(1)
        return super().extract(perception)
