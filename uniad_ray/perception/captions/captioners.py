"""Captions that a vision-language model writes (UniAD, eq. 11), from wherever a profile says they are to be had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, TypeAlias

from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.captions.base import Captioner
from uniad_ray.perception.captions.engine import CaptionEngine, CaptionEngineConfig
from uniad_ray.perception.captions.server import CaptionServer, CaptionServerConfig
from uniad_ray.perception.captions.table import CaptionTable, CaptionTableConfig

CAPTION_PROMPT: Final = "Describe all components and their spatial relationships in the image"
"""UniAD's prompt (section 4.1)."""

CaptionerConfig: TypeAlias = Annotated[
    CaptionServerConfig | CaptionTableConfig | CaptionEngineConfig, Field(discriminator="kind")
]
"""Where captions come from, by `kind`: a server, a table of earlier ones, or vLLM in this process."""


def build_captioner(name: str, config: CaptionerConfig) -> Captioner:
    """Prepares what a configuration names; nothing is asked, and no model is started, before there are images.

    Args:
        name: The extractor, for messages.
        config: What writes the captions.

    Raises:
        WeightsError: The folder of a model is missing or has another digest.
    """
    match config:
        case CaptionServerConfig():
            return CaptionServer(name, config)
        case CaptionTableConfig():
            return CaptionTable(name, config)
        case CaptionEngineConfig():
            return CaptionEngine(name, config)


def captioner_lineage(captioner: Captioner) -> dict[str, Any]:
    """What a captioner adds to the lineage of its extractor; the weights stand where those of extractors do."""
    document = captioner.lineage()
    weights = {"weights": document.pop("weights")} if "weights" in document else {}
    return {"captioner": document, **weights}


class CaptionDescriberConfig(StrictModel):
    """Options of captions.

    Attributes:
        captioner: What writes them.
        prompt: What the captioner is asked of each image.
    """

    captioner: CaptionerConfig
    prompt: str = Field(default=CAPTION_PROMPT, min_length=1)


class CaptionDescriber:
    """Captions of images by a vision-language model (UniAD, eq. 11). Provides `{name}/text`: N texts."""

    config_model: ClassVar[type[CaptionDescriberConfig]] = CaptionDescriberConfig

    def __init__(self, name: str, config: CaptionDescriberConfig, device: str) -> None:  # noqa: ARG002
        """Prepares the captioner.

        Args:
            name: Name of the extractor.
            config: Its options.
            device: Unused: vLLM chooses by itself.

        Raises:
            WeightsError: The folder of a model is missing or has another digest.
        """
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)
        self.captioner = build_captioner(name, config.captioner)

    @classmethod
    def fields_of(cls, name: str, config: CaptionDescriberConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields, without loading anything."""
        return frozenset({f"{name}/text"})

    def extract(self, perception: Perception) -> dict[str, Sequence[str]]:
        """Asks the captioner for one text an image."""
        texts = self.captioner.captions(perception.row_keys, perception.images, self.config.prompt)
        return {f"{self.name}/text": texts}

    def lineage(self) -> dict[str, Any]:
        """The prompt and the captioner."""
        return {"prompt": self.config.prompt, **captioner_lineage(self.captioner)}
