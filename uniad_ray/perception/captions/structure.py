"""The structured prompt (TMUAD: classes given, positions wanted), the JSON schema of its answer, and the parser."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from uniad_ray.archive.schemas import schema_directory
from uniad_ray.config.base import StrictModel

STRUCTURED_PROMPT: Final = """\
The image may show objects of these classes: {names}.
Divide the image into a 3 x 3 grid with the rows top, middle and bottom and the columns left, centre and right.
For each class in the image give its number of objects and the cell of each object, as JSON, like this:
{{"objects": [{{"class": "{first}", "count": 2, "positions": ["top left", "middle centre"]}}]}}"""
"""Our own wording; the paper does not print its prompt."""

Cell = Literal[
    "top left",
    "top centre",
    "top right",
    "middle left",
    "middle centre",
    "middle right",
    "bottom left",
    "bottom centre",
    "bottom right",
]


class CaptionedClass(StrictModel):
    """The objects of one class, as a model reports them.

    Attributes:
        name: The class.
        count: Number of objects.
        positions: Cells of the objects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str = Field(alias="class", max_length=64)
    count: int = Field(ge=1, le=99)
    positions: Annotated[tuple[Cell, ...], Field(min_length=1, max_length=12)]


class CaptionAnswer(StrictModel):
    """An answer to the structured prompt; see schema `caption_answer`."""

    objects: Annotated[tuple[CaptionedClass, ...], Field(max_length=24)]


def structured_prompt(classes: Sequence[str]) -> str:
    """The prompt for some classes, at least one."""
    return STRUCTURED_PROMPT.format(names=", ".join(classes), first=classes[0])


def answer_schema(classes: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of an answer about some classes; every list and number is bounded."""
    schema: dict[str, Any] = copy.deepcopy(_base_schema())
    schema["properties"]["objects"]["items"]["properties"]["class"] = {"enum": list(classes)}
    return schema


def parse_answer(text: str, classes: Sequence[str]) -> CaptionAnswer:
    """Parses an answer.

    Raises:
        ValueError: The text is not JSON, does not follow the schema, or names another class.
    """
    try:
        answer = CaptionAnswer.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"the answer does not follow the schema: {key or 'JSON'}: {first['msg']}") from error
    if unknown := sorted({one.name for one in answer.objects} - set(classes)):
        raise ValueError(f"the answer names the class {unknown[0]!r}, which was not given")
    return answer


@cache
def _base_schema() -> dict[str, Any]:
    document = json.loads((schema_directory() / "caption_answer.json").read_text(encoding="utf-8"))
    schema: dict[str, Any] = document["json_schema"]
    return schema
