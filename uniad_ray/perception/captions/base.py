"""The interfaces of captioners and of the models behind them, and the maximum length of a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np

from uniad_ray.errors import CaptionError
from uniad_ray.perception.missing import Missing

MAX_CHARACTERS: Final = 4000
"""Captions are truncated to this length, in case a model repeats itself."""

AnswerError = Literal["empty", "cut", "rejected", "schema"]
"""Why an answer is no caption: no text; cut at `max_tokens`; the model rejected the request; or not of the schema."""


@dataclass(frozen=True)
class Answer:
    """Answer of a model to one image.

    Attributes:
        text: What the model wrote, without outer blanks; empty if it wrote nothing.
        error_kind: Why it is no caption; None if it is one.
        error: The reason in one line, with what to do.
        prompt_tokens: Tokens of image and prompt; None if unknown.
        tokens: Tokens of the answer; None if unknown.
        seconds: Time of the request, or an equal share of the time of its batch.
    """

    text: str
    error_kind: AnswerError | None = None
    error: str | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    seconds: float = 0.0


class VisionLanguageModel(Protocol):
    """A model that answers a prompt about images: vLLM in this process, or a server.

    Attributes:
        longest_side: Maximum height and width of the images that it is given.
    """

    longest_side: int | None

    def answers(
        self,
        images: Sequence[np.ndarray],
        prompt: str,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
    ) -> list[Answer]:
        """Asks about each image independently.

        Args:
            images: N images, uint8, shape (H, W, 3), RGB, each with its own size.
            prompt: The prompt for every image.
            schema: JSON schema that every answer must follow; None for free text.
            max_tokens: Maximum number of tokens of an answer; None takes the configured one.

        Returns:
            N answers. A failure that concerns one image is an answer with an error.

        Raises:
            CaptionError: The model cannot be reached.
        """
        ...

    def lineage(self) -> dict[str, Any]:
        """Everything that affects the answers except the prompt, as JSON types; weights under `weights`."""
        ...


Captions: TypeAlias = "list[str | Missing]"
"""One text per image, or the reason why there is none."""


class Captioner(Protocol):
    """Returns one text per image, from a vision-language model or from stored captions.

    Attributes:
        longest_side: Maximum height and width of the images that it is given; None if it looks at no image.
    """

    longest_side: int | None

    def captions(self, row_keys: Sequence[str], images: Sequence[np.ndarray], prompt: str) -> Captions:
        """Describes each image independently.

        Args:
            row_keys: The N row keys of the archive.
            images: N images, uint8, shape (H, W, 3), RGB, each with its own size.
            prompt: The prompt for every image.

        Returns:
            N texts of at most `MAX_CHARACTERS` characters; `Missing` for an image without a text.

        Raises:
            CaptionError: The model cannot be reached or rejects a request, or no caption is stored for the prompt.
        """
        ...

    def lineage(self) -> dict[str, Any]:
        """Everything that affects the texts except the prompt, as JSON types.

        A network in this process is listed under `weights`, as in the lineage of extractors.
        """
        ...


def captions_of(answers: Sequence[Answer]) -> Captions:
    """The captions of some answers.

    Raises:
        CaptionError: The model rejected a request, which most often has a wrong option.
    """
    for answer in answers:
        if answer.error_kind == "rejected":
            raise CaptionError(str(answer.error))
    return [
        answer.text[:MAX_CHARACTERS] if answer.error_kind is None else Missing(str(answer.error)) for answer in answers
    ]


def checked(answer: Answer, who: str, is_cut: bool) -> Answer:
    """An answer with the error `empty` or `cut`, if it is one.

    Args:
        answer: The answer, without an error.
        who: Name of the model, for the message.
        is_cut: Whether the model reached its maximum number of tokens.
    """
    if not answer.text:
        message = f"{who} returned an empty answer; raise max_tokens, or use a vision-language chat model"
        return _with_error(answer, "empty", message)
    if is_cut:
        return _with_error(answer, "cut", f"{who} did not finish its answer; raise max_tokens")
    return answer


def _with_error(answer: Answer, kind: AnswerError, message: str) -> Answer:
    return Answer(answer.text, kind, message, answer.prompt_tokens, answer.tokens, answer.seconds)
