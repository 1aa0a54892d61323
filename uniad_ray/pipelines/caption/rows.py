"""Rows of a caption sidecar: from answers of a model, and from images that cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import CaptionError, ImageError
from uniad_ray.perception.captions.base import MAX_CHARACTERS, Answer
from uniad_ray.perception.captions.originals import decoded_original
from uniad_ray.perception.captions.structure import parse_answer
from uniad_ray.sidecars.captions import ANSWER_ERRORS, CaptionPlan

ATTEMPTS: Final = 2
"""How often a model is asked about one image. An empty or cut answer is often a whole one at the second time."""

Ask = Callable[[Sequence[np.ndarray], int | None], list[Answer]]
"""Asks about some images, with a maximum number of tokens (None: the configured one)."""


def decoded(
    encoded: Sequence[bytes], longest_side: int, value_range: ValueRange | None
) -> tuple[dict[int, np.ndarray], dict[int, ImageError]]:
    """Decodes images at their own aspect ratio.

    Args:
        encoded: The encoded files.
        longest_side: Maximum height and width of the results, pixels.
        value_range: As in `decode_image`.

    Returns:
        The images and the errors by position.
    """
    images: dict[int, np.ndarray] = {}
    errors: dict[int, ImageError] = {}
    for position, data in enumerate(encoded):
        try:
            images[position] = decoded_original(data, longest_side, value_range)
        except ImageError as error:
            errors[position] = error
    return images, errors


def ask_with_retry(
    images: Sequence[np.ndarray], plan: CaptionPlan, ask: Ask, max_tokens: int
) -> list[tuple[Answer, int]]:
    """Asks about some images, and a second time where that can help.

    Args:
        images: The images.
        plan: The plan of the sidecar.
        ask: Asks the model.
        max_tokens: Configured maximum number of tokens; a cut answer gets twice as many.

    Returns:
        The answer to each image, and how often the model was asked.

    Raises:
        CaptionError: The model rejects several images and answers none: an option is wrong.
    """
    answers = [checked_structure(answer, plan) for answer in ask(images, None)]
    attempts = [1] * len(answers)
    again = [row for row, answer in enumerate(answers) if answer.error_kind in ("empty", "cut", "schema")]
    if again:
        limit = 2 * max_tokens if any(answers[row].error_kind == "cut" for row in again) else None
        for row, answer in zip(again, ask([images[row] for row in again], limit), strict=True):
            answers[row] = checked_structure(answer, plan)
            attempts[row] = ATTEMPTS
    rejected = [answer for answer in answers if answer.error_kind == "rejected"]
    if len(rejected) == len(answers) > 1:
        raise CaptionError(str(rejected[0].error))
    return list(zip(answers, attempts, strict=True))


def checked_structure(answer: Answer, plan: CaptionPlan) -> Answer:
    """An answer with the error `schema` if it should be structured and is not."""
    if answer.error_kind is not None or not plan.answer_schema:
        return answer
    try:
        parse_answer(answer.text, plan.classes)
    except ValueError as error:
        return replace(answer, error_kind="schema", error=str(error))
    return answer


def answer_row(row_key: str, answer: Answer, attempts: int, plan: CaptionPlan) -> dict[str, Any]:
    """The row of an answer."""
    is_good = answer.error_kind is None
    objects = None
    if is_good and plan.answer_schema:
        parsed = parse_answer(answer.text, plan.classes)
        objects = [one.model_dump(mode="json", by_alias=True) for one in parsed.objects]
    return {
        **_common(row_key, plan),
        "status": "ok" if is_good else "error",
        "error_kind": answer.error_kind,
        "error": answer.error,
        "text": answer.text[:MAX_CHARACTERS],
        "objects": objects,
        "attempts": attempts,
        "prompt_tokens": answer.prompt_tokens,
        "tokens": answer.tokens,
        "seconds": answer.seconds,
    }


def undecodable_row(row_key: str, error: ImageError, plan: CaptionPlan) -> dict[str, Any]:
    """The row of an image that the model was not asked about."""
    nothing = {"text": None, "objects": None, "attempts": 0, "prompt_tokens": None, "tokens": None, "seconds": 0.0}
    return {**_common(row_key, plan), "status": "error", "error_kind": error.kind, "error": str(error), **nothing}


def caption_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """The rows as a table of schema `caption_sidecar`."""
    schema = dataset_schema("caption_sidecar")
    return schema.table({name: [row[name] for row in rows] for name in schema.arrow.names})


def is_worth_a_retry(row: dict[str, Any]) -> bool:
    """Whether `--retry-errors` asks again: the model failed, not the decoder."""
    return row["status"] == "error" and row["error_kind"] in ANSWER_ERRORS


def _common(row_key: str, plan: CaptionPlan) -> dict[str, Any]:
    return {
        "row_key": row_key,
        "prompt": plan.prompt,
        "engine": plan.engine,
        "model": plan.model,
        "model_digest": plan.model_digest,
        "prompt_digest": plan.prompt_digest,
    }
