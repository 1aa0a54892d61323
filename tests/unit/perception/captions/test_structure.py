from __future__ import annotations

import json

import pytest

from uniad_ray.perception.captions.structure import (
    CaptionAnswer,
    answer_schema,
    parse_answer,
    structured_prompt,
)
from uniad_ray.perception.text.descriptions import CELLS

CLASSES = ("bolt", "nut")


def answer(**changes: object) -> str:
    return json.dumps({"objects": [{"class": "nut", "count": 2, "positions": ["top left", "top left"], **changes}]})


def test_answer_is_parsed() -> None:
    (nut,) = parse_answer(answer(), CLASSES).objects
    assert (nut.name, nut.count, nut.positions) == ("nut", 2, ("top left", "top left"))
    assert parse_answer('{"objects": []}', CLASSES) == CaptionAnswer(objects=())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("two nuts", "does not follow the schema: JSON: Invalid JSON"),
        (answer(count=0), "objects.0.count: Input should be greater than or equal to 1"),
        (answer(positions=["here"]), "objects.0.positions.0: Input should be"),
        (answer(size=3), "objects.0.size: Extra inputs are not permitted"),
        (answer(**{"class": "washer"}), "names the class 'washer', which was not given"),
    ],
)
def test_wrong_answer_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        parse_answer(text, CLASSES)
    assert "\n" not in str(raised.value)


def test_schema_bounds_everything_as_the_parser_does() -> None:
    schema = answer_schema(CLASSES)
    objects = schema["properties"]["objects"]
    members = objects["items"]["properties"]
    assert members["class"] == {"enum": ["bolt", "nut"]}
    assert members["positions"]["items"]["enum"] == list(CELLS)
    parsed = CaptionAnswer.model_json_schema()
    one = parsed["$defs"]["CaptionedClass"]["properties"]
    assert objects["maxItems"] == parsed["properties"]["objects"]["maxItems"]
    assert (
        [members["count"][key] for key in ("minimum", "maximum")]
        == [1, 99]
        == [one["count"][key] for key in ("minimum", "maximum")]
    )
    for key in ("minItems", "maxItems"):
        assert members["positions"][key] == one["positions"][key]
    assert answer_schema(("pin",))["properties"]["objects"]["items"]["properties"]["class"] == {"enum": ["pin"]}


def test_prompt_names_the_classes_and_shows_an_answer() -> None:
    prompt = structured_prompt(CLASSES)
    assert "of these classes: bolt, nut." in prompt
    assert parse_answer(prompt.splitlines()[-1], CLASSES).objects[0].name == "bolt"
