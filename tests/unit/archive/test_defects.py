from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.archive.defects import DefectKind, decode_defects, read_defect_kinds
from uniad_ray.archive.scenes.dataset import SceneConfig, defects_config
from uniad_ray.archive.stores.base import encode_json

SHARE = {"defect_name": "dent", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True}
PIXELS = {"defect_name": "missing", "pixel_value": 254, "saturation_threshold": 3, "relative_saturation": False}
WORDS = st.sampled_from(["defect_name", "pixel_value", "saturation_threshold", "relative_saturation", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner),
    max_leaves=3,
)


def _kind() -> DefectKind:
    return DefectKind.model_validate(SHARE)


@pytest.mark.parametrize(
    ("threshold", "relative", "area", "saturation_area"),
    [
        (0.5, True, 10, 5),
        (0.5, True, 7, 3),
        (1.0, True, 7, 7),
        (1, True, 7, 7),
        (0.5, True, 1, 1),
        (3, False, 10, 3),
        (3.0, False, 10, 3),
        (3, False, 2, 2),
    ],
)
def test_saturation_areas_by_hand(threshold: float, relative: bool, area: int, saturation_area: int) -> None:
    kind = DefectKind(defect_name="dent", pixel_value=255, saturation_threshold=threshold, relative_saturation=relative)
    assert kind.saturation_area(area) == saturation_area


def test_scene_config_is_read() -> None:
    content = defects_config(SceneConfig())
    kinds, problems = read_defect_kinds(content)
    assert {kind.defect_name for kind in kinds.values()} == {entry["defect_name"] for entry in content}
    assert problems == []
    assert decode_defects(encode_json(content)) == (content, [])


def test_further_fields_are_ignored() -> None:
    assert read_defect_kinds([{**SHARE, "colour": "red"}]) == ({255: _kind()}, [])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({key: value for key, value in SHARE.items() if key != "pixel_value"}, "entry 2: pixel_value: Field required"),
        ({**SHARE, "pixel_value": 0}, "entry 2: pixel_value: "),
        ({**SHARE, "pixel_value": "255"}, "entry 2: pixel_value: "),
        ({**SHARE, "pixel_value": None}, "entry 2: pixel_value: "),
        ({**SHARE, "pixel_value": [255]}, "entry 2: pixel_value: "),
        ({**SHARE, "pixel_value": True}, "entry 2: pixel_value: "),
        ({**SHARE, "pixel_value": 10**400}, "entry 2: pixel_value: "),
        ({**SHARE, "defect_name": None}, "entry 2: defect_name: "),
        ({**SHARE, "defect_name": "\ud800"}, "entry 2: defect_name: "),
        ({**SHARE, "relative_saturation": "yes"}, "entry 2: relative_saturation: "),
        ({**SHARE, "saturation_threshold": True}, "entry 2: saturation_threshold: "),
        ({**SHARE, "saturation_threshold": 1.5}, "a relative saturation_threshold"),
        ({**SHARE, "saturation_threshold": 0}, "a relative saturation_threshold"),
        ({**PIXELS, "pixel_value": 9, "saturation_threshold": 0}, "an absolute saturation_threshold"),
        ({**PIXELS, "pixel_value": 9, "saturation_threshold": 2.5}, "an absolute saturation_threshold"),
        ({**PIXELS, "pixel_value": 9, "saturation_threshold": float("nan")}, "an absolute saturation_threshold"),
        (SHARE | {"pixel_value": 254}, "entry 2: pixel_value 254 is already used by 'missing'"),
        ("dent", "entry 2: expected an object, not 'dent'"),
        (["x" * 99], f"entry 2: expected an object, not ['{'x' * 38}...; fix it"),
    ],
)
def test_wrong_entry_affects_nothing_else(entry: Any, message: str) -> None:
    last = {**SHARE, "pixel_value": 7}
    kinds, problems = read_defect_kinds([PIXELS, entry, last])
    assert kinds == {254: DefectKind.model_validate(PIXELS), 7: DefectKind.model_validate(last)}
    (problem,) = problems
    assert message in problem
    assert problem.startswith("entry 2: ")
    assert "\n" not in problem


@pytest.mark.parametrize("content", [{}, None, "dent"])
def test_content_must_be_a_list(content: Any) -> None:
    assert read_defect_kinds(content) == ({}, [f"expected a list of entries, not {type(content).__name__}; fix it"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{not json", "not valid JSON (Expecting property name"),
        (b"\xff\xff", "not valid JSON ("),
        (b"[" * 100_000, "not valid JSON (nested too deeply)"),
        (b"null", "expected a list of entries, not NoneType; fix it"),
    ],
)
def test_unusable_file_is_named(text: bytes, message: str) -> None:
    entries, (problem,) = decode_defects(text)
    assert entries == []
    assert problem.startswith(message)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_no_json_are_refused(number: str) -> None:
    entry = json.dumps(PIXELS).replace(": 3", f": {number}")
    entries, (problem,) = decode_defects(f"[{entry}, {json.dumps(SHARE)}]".encode())
    assert entries == [SHARE]
    assert problem.startswith("entry 1: saturation_threshold: ")


@given(content=st.lists(st.dictionaries(WORDS, VALUES, max_size=5) | VALUES, max_size=4))
def test_any_content_is_read_and_can_be_stored(content: list[Any]) -> None:
    entries, problems = decode_defects(json.dumps(content).encode())
    assert len(entries) + len(problems) == len(content)
    assert decode_defects(encode_json(entries)) == (entries, [])
