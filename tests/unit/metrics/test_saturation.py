from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.archive.defects import DefectKind, read_defect_kinds
from uniad_ray.metrics.saturation import Defect, find_defects

SHARE = {"defect_name": "dent", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True}
PIXELS = {"defect_name": "missing", "pixel_value": 254, "saturation_threshold": 3, "relative_saturation": False}


def mask_of(*values: int, dtype: type = np.uint8) -> np.ndarray:
    return np.array([values], dtype)


def test_each_file_and_each_grey_value_is_a_defect() -> None:
    kinds, _ = read_defect_kinds([SHARE, PIXELS])
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
