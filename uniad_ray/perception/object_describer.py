"""Describes the objects of an image in the canonical text of descriptions (TMUAD, algorithm 1)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.descriptions import describe_segments


class ObjectDescriberConfig(StrictModel):
    """Options of the description.

    Attributes:
        segments: Field with named segments.
        softness: Share of the image's side within which an object is said to be on both sides of a line of the grid.
        left_out: Names that are not described.
    """

    segments: str
    softness: float = Field(default=0.05, ge=0.0, le=1 / 6)
    left_out: tuple[str, ...] = ("other",)


class ObjectDescriber:
    """Says category, count, position in a 3 x 3 grid and size of the objects, class by class.

    Provides `{name}/text`: N canonical texts.
    """

    config_model: ClassVar[type[ObjectDescriberConfig]] = ObjectDescriberConfig

    def __init__(self, name: str, config: ObjectDescriberConfig, device: str) -> None:  # noqa: ARG002
        """A describer; it learns nothing and loads nothing."""
        self.name = name
        self.config = config
        self.needs = frozenset({config.segments})
        self.provides = self.fields_of(name, config)

    @classmethod
    def fields_of(cls, name: str, config: ObjectDescriberConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/text"})

    def perceive(self, perception: Perception) -> dict[str, list[str]]:
        """Describes every image by itself."""
        texts = []
        for segments in perception.segments[self.config.segments]:
            described = np.array([name not in self.config.left_out for name in segments.names], dtype=bool)
            texts.append(str(describe_segments(segments.select(described), self.config.softness)))
        return {f"{self.name}/text": texts}

    def lineage(self) -> dict[str, Any]:
        """All that changes the texts."""
        return self.config.model_dump(mode="json")
