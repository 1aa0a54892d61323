"""Stub of segmenter and namer that finds the same named squares in every image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.segments import Segments


def squares(names: Sequence[str]) -> Segments:
    """Squares of 4 x 4 pixels in a row at the top of an image of 40 x 40."""
    masks = np.zeros((len(names), 40, 40), dtype=bool)
    for number, mask in enumerate(masks):
        mask[2:6, 2 + 10 * number : 6 + 10 * number] = True
    return Segments.of(masks).named(names)


class NamedSquaresConfig(StrictModel):
    """The names of the squares."""

    names: tuple[str, ...]


class NamedSquares:
    """Finds the same squares in every image. Provides `{name}/segments`."""

    config_model: ClassVar[type[NamedSquaresConfig]] = NamedSquaresConfig

    def __init__(self, name: str, config: NamedSquaresConfig, device: str) -> None:  # noqa: ARG002
        self.name, self.config = name, config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)

    @classmethod
    def fields_of(cls, name: str, config: NamedSquaresConfig) -> frozenset[str]:  # noqa: ARG003
        return frozenset({f"{name}/segments"})

    def extract(self, perception: Perception) -> dict[str, list[Segments]]:
        return {f"{self.name}/segments": [squares(self.config.names) for _ in perception.row_keys]}

    def lineage(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")
