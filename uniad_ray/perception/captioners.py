"""Captions that a vision-language model writes (UniAD, eq. 11), from wherever they are to be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perception

CAPTION_PROMPT: Final = "Describe all components and their spatial relationships in the image"
"""UniAD's prompt (section 4.1)."""


class Captioner(Protocol):
    """Writes one text an image: a vision-language model, or a table of what one wrote before."""

    def captions(self, row_keys: Sequence[str], images: np.ndarray, prompt: str) -> Sequence[str]:
        """Describes images; an image's caption does not depend on the rest of its batch.

        Args:
            row_keys: The N row keys of the archive.
            images: uint8, shape (N, H, W, 3), RGB.
            prompt: What the model is asked.

        Returns:
            N texts.
        """
        ...

    def lineage(self) -> dict[str, Any]:
        """Where the captions come from, as JSON types."""
        ...


class CaptionTable:
    """Captions that were written before, by row key."""

    def __init__(self, texts: Mapping[str, str], source: str) -> None:
        """Keeps the table.

        Args:
            texts: Caption by row key.
            source: Where it was read from, for messages and the lineage.
        """
        self._texts = texts
        self._source = source

    def captions(self, row_keys: Sequence[str], images: np.ndarray, prompt: str) -> Sequence[str]:  # noqa: ARG002
        """The captions of the given rows.

        Raises:
            ConfigError: A row has none.
        """
        missing = [key for key in row_keys if key not in self._texts]
        if missing:
            raise ConfigError(f"{self._source} has no caption for image {missing[0]}; caption the archive again")
        return [self._texts[key] for key in row_keys]

    def lineage(self) -> dict[str, Any]:
        """The table's source."""
        return {"source": self._source}


class CaptionDescriberConfig(StrictModel):
    """Options of captions.

    Attributes:
        prompt: What the captioner is asked of each image.
    """

    prompt: str = CAPTION_PROMPT


class CaptionDescriber:
    """Captions of images. Provides `{name}/text`: N texts."""

    config_model: ClassVar[type[CaptionDescriberConfig]] = CaptionDescriberConfig

    def __init__(
        self,
        name: str,
        config: CaptionDescriberConfig,
        device: str,  # noqa: ARG002
        captioner: Captioner | None = None,
    ) -> None:
        """Takes the captioner that is to be asked.

        Raises:
            ConfigError: There is none.
        """
        if captioner is None:
            raise ConfigError(
                f"{name}: no captioner is configured; use uniad_ray.perception.describers:ComponentDescriber, or an "
                "expert set without text"
            )
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)
        self._captioner = captioner

    @classmethod
    def fields_of(cls, name: str, config: CaptionDescriberConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/text"})

    def perceive(self, perception: Perception) -> dict[str, Sequence[str]]:
        """Asks the captioner for one text an image."""
        texts = self._captioner.captions(perception.row_keys, perception.images, self.config.prompt)
        return {f"{self.name}/text": texts}

    def lineage(self) -> dict[str, Any]:
        """The prompt and the captioner."""
        return {**self.config.model_dump(mode="json"), "captioner": self._captioner.lineage()}
