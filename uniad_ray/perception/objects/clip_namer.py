"""Zero-shot naming of objects with CLIP and a list of classes (TMUAD, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.objects.clip_tuning_config import ClipTuningConfig
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.descriptions import check_class_names
from uniad_ray.perception.text.encoders import ClipTextEncoder, PretrainedEncoderConfig
from uniad_ray.perception.weights.model_folders import ModelFolderSource


class ClipNamerConfig(StrictModel):
    """Options of the namer.

    Attributes:
        segments: Field with the segments.
        vectors: Field with CLIP's image features of the segments.
        weights: CLIP's folder; must be the same as for the vectors.
        classes: Possible classes of a segment, in words that CLIP knows. Add a class such as `background` for segments
            that belong to no other class.
        prompt: Prompt for a class; the class replaces `{}`.
        names: Display names by class, such as `small metal screw: bolt`.
        tuning: Options of `uniad-ray tune-clip`.
    """

    segments: str
    vectors: str
    weights: ModelFolderSource
    classes: tuple[str, ...] = ()
    prompt: str = Field(default="a photo of a {}.", pattern=r"^[^{}]*\{\}[^{}]*$")
    names: Mapping[str, str] = Field(default_factory=dict)
    tuning: ClipTuningConfig = ClipTuningConfig()

    @model_validator(mode="after")
    def _usable_and_distinct(self) -> Self:
        check_class_names(self.classes)
        if unknown := sorted(set(self.names) - set(self.classes)):
            raise ValueError(f"names has unknown classes {', '.join(unknown)}; choose from {', '.join(self.classes)}")
        check_class_names(self.given_names)
        return self

    @property
    def given_names(self) -> tuple[str, ...]:
        """The display name of each class."""
        return tuple(self.names.get(name, name) for name in self.classes)

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompt of each class."""
        return tuple(self.prompt.format(name) for name in self.classes)


class ClipNamer:
    """Gives each segment the class whose text is most similar to its crop.

    The image tower runs in `ClipObjectFeatures`.

    Provides `{name}/segments`: the same segments with names.
    """

    config_model: ClassVar[type[ClipNamerConfig]] = ClipNamerConfig

    def __init__(self, name: str, config: ClipNamerConfig, device: str) -> None:
        """Encodes the classes once; reuses the text tower if this process has loaded it already.

        Raises:
            ConfigError: There are no classes, or transformers is not installed.
            WeightsError: The folder is missing or holds another kind of network.
        """
        if not config.classes:
            raise ConfigError(
                f"{name}: there are no classes; list them in extractors.{name}.config.classes, or set classes to a "
                "list or to the name of one, such as mvtec-loco"
            )
        self.name = name
        self.config = config
        self.needs = frozenset({config.segments, config.vectors})
        self.provides = self.fields_of(name, config)
        self._encoder = ClipTextEncoder(name, PretrainedEncoderConfig(weights=config.weights), device)
        # One transposed matrix: shape (D, classes).
        self._classes = self._encoder.encode(config.texts).T

    @classmethod
    def fields_of(cls, name: str, config: ClipNamerConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields; loads no weights."""
        return frozenset({f"{name}/segments"})

    def extract(self, perception: Perception) -> dict[str, list[Segments]]:
        """Names the segments of each image independently.

        Raises:
            ConfigError: The vectors come from another network than the class texts.
        """
        names = self.config.given_names
        found = []
        for segments, vectors in zip(
            perception.segments[self.config.segments], perception.vectors[self.config.vectors], strict=True
        ):
            if vectors.shape[1] != len(self._classes):
                raise ConfigError(
                    f"{self.name}: {self.config.vectors} has {vectors.shape[1]} dimensions and the class texts have "
                    f"{len(self._classes)}; use the same weights for both"
                )
            nearest = np.argmax(vectors @ self._classes, axis=1)
            found.append(segments.named([names[number] for number in nearest]))
        return {f"{self.name}/segments": found}

    def lineage(self) -> dict[str, Any]:
        """The weights with their digest, and all options that affect the names."""
        return {
            **self.config.model_dump(mode="json", exclude={"tuning"}),
            "weights": self._encoder.lineage()["weights"],
        }
