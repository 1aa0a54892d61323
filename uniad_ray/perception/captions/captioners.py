"""Captions by a vision-language model (UniAD, eq. 11), from the source named in the profile."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, TypeAlias

from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.captions.base import Captioner, Captions
from uniad_ray.perception.captions.engine import CaptionEngine, CaptionEngineConfig
from uniad_ray.perception.captions.originals import original_images
from uniad_ray.perception.captions.server import CaptionServer, CaptionServerConfig
from uniad_ray.perception.captions.table import CaptionTable, CaptionTableConfig

CAPTION_PROMPT: Final = "Describe all components and their spatial relationships in the image"
"""UniAD's prompt (section 4.1)."""

CaptionerConfig: TypeAlias = Annotated[
    CaptionServerConfig | CaptionTableConfig | CaptionEngineConfig, Field(discriminator="kind")
]
"""Source of captions, by `kind`: a server, a table of stored captions, or vLLM in this process."""


def build_captioner(name: str, config: CaptionerConfig) -> Captioner:
    """Builds the configured captioner; models and servers are not contacted before the first images.

    Args:
        name: Name of the extractor, for messages.
        config: Source of the captions.

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
    """The lineage of a captioner for its extractor; its weights move to the top-level key `weights`."""
    document = captioner.lineage()
    weights = {"weights": document.pop("weights")} if "weights" in document else {}
    return {"captioner": document, **weights}


class CaptionDescriberConfig(StrictModel):
    """Options of the captions.

    Attributes:
        captioner: Source of the captions.
        prompt: Prompt for every image.
    """

    captioner: CaptionerConfig
    prompt: str = Field(default=CAPTION_PROMPT, min_length=1)


class CaptionDescriber:
    """Captions of images by a vision-language model (UniAD, eq. 11). Provides `{name}/text`: N texts, or `Missing`."""

    config_model: ClassVar[type[CaptionDescriberConfig]] = CaptionDescriberConfig

    def __init__(self, name: str, config: CaptionDescriberConfig, device: str) -> None:  # noqa: ARG002
        """Builds the captioner.

        Args:
            name: Name of the extractor.
            config: Its options.
            device: Unused; vLLM chooses its device.

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
        """The names of the provided fields; loads nothing."""
        return frozenset({f"{name}/text"})

    def extract(self, perception: Perception) -> dict[str, Captions]:
        """Requests one caption per image, of the image as it was before it was stretched."""
        images = original_images(perception, self.captioner.longest_side)
        texts = self.captioner.captions(perception.row_keys, images, self.config.prompt)
        return {f"{self.name}/text": texts}

    def lineage(self) -> dict[str, Any]:
        """The prompt and the captioner."""
        return {"prompt": self.config.prompt, **captioner_lineage(self.captioner)}
