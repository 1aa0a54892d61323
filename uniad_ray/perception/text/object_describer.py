"""Describe the objects of an image as canonical text (TMUAD, algorithm 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.captions.base import Captions
from uniad_ray.perception.captions.captioners import CaptionerConfig, build_captioner, captioner_lineage
from uniad_ray.perception.captions.originals import original_images
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.descriptions import Position, describe_segments
from uniad_ray.perception.text.vlm_positions import POSITIONS_PROMPT, positions_prompt, read_positions


class ObjectDescriberConfig(StrictModel):
    """Options of the description.

    Attributes:
        segments: Field with named segments.
        softness: Distance to a grid line within which an object counts for both sides, as a fraction of the image's
            side.
        left_out: Names to omit from the description.
        positions: Source of the positions: the `grid` cell of the centre of the box, or the answer of a `vlm`. With
            `vlm`, classes without a clear answer use the grid.
        captioner: The vision-language model; required for `positions: vlm`.
    """

    segments: str
    softness: float = Field(default=0.05, ge=0.0, le=1 / 6)
    left_out: tuple[str, ...] = ("other",)
    positions: Literal["grid", "vlm"] = "grid"
    captioner: CaptionerConfig | None = None

    @model_validator(mode="after")
    def _someone_to_ask(self) -> Self:
        if self.positions == "vlm" and self.captioner is None:
            raise ValueError(
                "positions: vlm needs a vision-language model; configure captioner, or use positions: grid"
            )
        return self


class ObjectDescriber:
    """Describes class, count, position in a 3 x 3 grid and size of the objects, class by class.

    Provides `{name}/text`: N canonical texts.
    """

    config_model: ClassVar[type[ObjectDescriberConfig]] = ObjectDescriberConfig

    def __init__(self, name: str, config: ObjectDescriberConfig, device: str) -> None:  # noqa: ARG002
        """Builds the captioner, if one is used; nothing is learned.

        Args:
            name: Name of the extractor.
            config: Its options.
            device: Unused.

        Raises:
            WeightsError: The folder of a vision-language model is missing or has another digest.
        """
        self.name = name
        self.config = config
        self.needs = frozenset({config.segments})
        self.provides = self.fields_of(name, config)
        asked = config.captioner if config.positions == "vlm" else None
        self.captioner = None if asked is None else build_captioner(name, asked)

    @classmethod
    def fields_of(cls, name: str, config: ObjectDescriberConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/text"})

    def extract(self, perception: Perception) -> dict[str, Captions]:
        """Describes each image independently; one whose positions the model did not give lacks a description."""
        described = [self._described(segments) for segments in perception.segments[self.config.segments]]
        positions = self._positions(perception, described)
        texts: Captions = [
            known if isinstance(known, Missing) else str(describe_segments(segments, self.config.softness, known))
            for segments, known in zip(described, positions, strict=True)
        ]
        return {f"{self.name}/text": texts}

    def lineage(self) -> dict[str, Any]:
        """All options that affect the texts."""
        document = self.config.model_dump(mode="json", exclude={"captioner"})
        if self.captioner is None:
            return document
        return {**document, "prompt": POSITIONS_PROMPT, **captioner_lineage(self.captioner)}

    def _described(self, segments: Segments) -> Segments:
        return segments.select(np.array([name not in self.config.left_out for name in segments.names], dtype=bool))

    def _positions(
        self, perception: Perception, described: Sequence[Segments]
    ) -> list[dict[str, tuple[Position, ...]] | Missing]:
        """The model's positions for each image; images with the same classes share one call."""
        found: list[dict[str, tuple[Position, ...]] | Missing] = [{} for _ in described]
        if self.captioner is None:
            return found
        images_of: dict[str, list[int]] = {}
        for row, segments in enumerate(described):
            if segments.names:
                images_of.setdefault(positions_prompt(set(segments.names)), []).append(row)
        for prompt, rows in images_of.items():
            keys = [perception.row_keys[row] for row in rows]
            images = original_images(perception.select(rows), self.captioner.longest_side)
            answers = self.captioner.captions(keys, images, prompt)
            for row, answer in zip(rows, answers, strict=True):
                found[row] = (
                    answer if isinstance(answer, Missing) else read_positions(answer, Counter(described[row].names))
                )
        return found
