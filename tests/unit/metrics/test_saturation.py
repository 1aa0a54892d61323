from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uniad_ray.archive.scenes.dataset import SceneConfig, defects_config
from uniad_ray.errors import ArchiveError
from uniad_ray.metrics.saturation import Defect, DefectKind, find_defects, read_defect_kinds

SHARE = {"defect_name": "dent", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True}
PIXELS = {"defect_name": "missing", "pixel_value": 254, "saturation_threshold": 3, "relative_saturation": False}


def mask_of(*values: int, dtype: type = np.uint8) -> np.ndarray:
    return np.array([values], dtype)


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


def test_each_file_and_each_grey_value_is_a_defect() -> None:
    kinds = read_defect_kinds([SHARE, PIXELS])
    files = [mask_of(255, 0, 255, 255, 255), mask_of(254, 254, 0, 254, 254), mask_of(254, 0, 254, 0, 255)]
    defects, unknown = find_defects(files, kinds)
    assert unknown == set()
    assert [(defect.mask.ravel().tolist(), defect.saturation_area) for defect in defects] == [
        ([True, False, True, True, True], 2),
        ([True, True, False, True, True], 3),
        ([True, False, True, False, False], 2),
        ([False, False, False, False, True], 1),
    ]


def test_unknown_grey_value_saturates_at_whole_area() -> None:
    defects, unknown = find_defects([mask_of(7, 7, 7, 255), mask_of(1000, 0, 0, 0, dtype=np.uint16)], {255: _kind()})
    assert unknown == {7, 1000}
    assert [defect.saturation_area for defect in defects] == [3, 1, 1]


def _kind() -> DefectKind:
    return DefectKind.model_validate(SHARE)


def test_empty_files_hold_no_defect() -> None:
    assert find_defects([mask_of(0, 0)], {255: _kind()}) == ([], set())
    assert find_defects([], {255: _kind()}) == ([], set())


def test_scene_config_is_read() -> None:
    content = defects_config(SceneConfig())
    kinds = read_defect_kinds(content)
    assert {kind.defect_name for kind in kinds.values()} == {entry["defect_name"] for entry in content}


def test_further_fields_are_ignored() -> None:
    assert read_defect_kinds([{**SHARE, "colour": "red"}]) == {255: _kind()}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({key: value for key, value in SHARE.items() if key != "pixel_value"}, "entry 2: pixel_value: Field required"),
        ({**SHARE, "pixel_value": 0}, "entry 2: pixel_value: "),
        ({**SHARE, "pixel_value": "255"}, "entry 2: pixel_value: "),
        ({**SHARE, "defect_name": None}, "entry 2: defect_name: "),
        ({**SHARE, "relative_saturation": "yes"}, "entry 2: relative_saturation: "),
        ({**SHARE, "saturation_threshold": True}, "entry 2: saturation_threshold: "),
        ({**SHARE, "saturation_threshold": 1.5}, "entry 2: .*a relative saturation_threshold"),
        ({**SHARE, "saturation_threshold": 0}, "entry 2: .*a relative saturation_threshold"),
        ({**PIXELS, "pixel_value": 9, "saturation_threshold": 0}, "entry 2: .*an absolute saturation_threshold"),
        ({**PIXELS, "pixel_value": 9, "saturation_threshold": 2.5}, "entry 2: .*an absolute saturation_threshold"),
        (
            {**PIXELS, "pixel_value": 9, "saturation_threshold": float("nan")},
            "entry 2: .*an absolute saturation_threshold",
        ),
        (SHARE | {"pixel_value": 254}, "entry 2: pixel_value 254 is already used by 'missing'"),
        ("dent", "entry 2: expected an object"),
    ],
)
def test_invalid_entry_is_named(entry: Any, message: str) -> None:
    with pytest.raises(ArchiveError, match=f"defects_config.json, {message}") as raised:
        read_defect_kinds([PIXELS, entry])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [{}, None, "dent"])
def test_content_must_be_a_list(content: Any) -> None:
    with pytest.raises(ArchiveError, match="expected a list"):
        read_defect_kinds(content)


@pytest.mark.parametrize(
    ("mask", "saturation_area"),
    [
        (np.ones((2, 2), bool), 0),
        (np.ones((2, 2), bool), 5),
        (np.zeros((2, 2), bool), 1),
        (np.ones((2, 2), np.uint8), 1),
        (np.ones((2, 2, 1), bool), 1),
    ],
)
def test_impossible_defects_are_refused(mask: np.ndarray, saturation_area: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Defect(mask, saturation_area)
