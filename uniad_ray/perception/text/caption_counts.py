"""What a structured caption says about numbers: of each class, and compared with the segments."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from pydantic import Field, field_validator

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception
from uniad_ray.perception.captions.base import Captions
from uniad_ray.perception.captions.captioners import CaptionerConfig, build_captioner, captioner_lineage
from uniad_ray.perception.captions.originals import original_images
from uniad_ray.perception.captions.structure import parse_answer, structured_prompt
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.text.descriptions import check_class_names


class CaptionCounterConfig(StrictModel):
    """Options of the numbers.

    Attributes:
        captioner: Source of the captions.
        classes: Classes of the structured prompt, as in `uniad-ray caption --classes`.
        segments: Field with the segments of each image, to compare their number with the caption's; null leaves it out.
    """

    captioner: CaptionerConfig
    classes: tuple[str, ...] = Field(min_length=1)
    segments: str | None = None

    @field_validator("classes")
    @classmethod
    def _usable_names(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        check_class_names(classes)
        return classes


class CaptionCounter:
    """One sentence for the number of objects of each class in a structured caption.

    With segments, one more sentence compares the number of all objects with that of the segments. An answer with
    another number is evidence like any other: a text expert learns what normal images have.

    Provides `{name}/text`: N texts, such as `1 bolt. 0 nut. As many objects as segments.`, or `Missing`.
    """

    config_model: ClassVar[type[CaptionCounterConfig]] = CaptionCounterConfig

    def __init__(self, name: str, config: CaptionCounterConfig, device: str) -> None:  # noqa: ARG002
        """Builds the captioner; it is not asked before the first images.

        Args:
            name: Name of the extractor.
            config: Its options.
            device: Unused.

        Raises:
            WeightsError: The folder of a model is missing or has another digest.
        """
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset() if config.segments is None else frozenset({config.segments})
        self.provides = self.fields_of(name, config)
        self.captioner = build_captioner(name, config.captioner)
        self._prompt = structured_prompt(config.classes)

    @classmethod
    def fields_of(cls, name: str, config: CaptionCounterConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields; loads nothing."""
        return frozenset({f"{name}/text"})

    def extract(self, perception: Perception) -> dict[str, Captions]:
        """Counts in each caption; one that does not follow the schema is `Missing`."""
        images = original_images(perception, self.captioner.longest_side)
        found = list(self.captioner.captions(perception.row_keys, images, self._prompt))
        for row, text in enumerate(found):
            if not isinstance(text, Missing):
                found[row] = self._counted(text, perception, row)
        return {f"{self.name}/text": found}

    def _counted(self, text: str, perception: Perception, row: int) -> str | Missing:
        try:
            answer = parse_answer(text, self.config.classes)
        except ValueError as error:
            return Missing(f"{self.name}: {error}")
        # A model may name a class twice.
        numbers: Counter[str] = Counter()
        for one in answer.objects:
            numbers[one.name] += one.count
        said = [f"{numbers[name]} {name}." for name in self.config.classes]
        if self.config.segments is not None:
            said.append(_comparison(numbers.total() - len(perception.segments[self.config.segments][row])))
        return " ".join(said)

    def lineage(self) -> dict[str, Any]:
        """Prompt, classes, segments and the captioner."""
        options = {"classes": list(self.config.classes), "segments": self.config.segments}
        return {"prompt": self._prompt, **options, **captioner_lineage(self.captioner)}


def _comparison(surplus: int) -> str:
    if surplus == 0:
        return "As many objects as segments."
    noun = "object" if abs(surplus) == 1 else "objects"
    return f"{abs(surplus)} {noun} {'more' if surplus > 0 else 'fewer'} than segments."
