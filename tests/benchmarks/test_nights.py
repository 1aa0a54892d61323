from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from support.scripts import load_script

BRIGHT = "product-1: images are brighter than in the images of the fit: median brightness 178 of 255, was 131"
SMALL = "product-1: image size changed: 48 x 48 pixels tonight, 64 x 64 pixels in the last nights"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    return load_script("benchmarks/nights.py")


def test_changed_nights_need_an_alarm_that_names_the_change(script: ModuleType) -> None:
    right = {"1-quiet": [], "2-quiet": [], "3-bright": ["scores are higher", BRIGHT], "4-smaller": [SMALL]}
    assert script.named(right) == dict.fromkeys(right, True)
    wrong = {"1-quiet": ["scores are higher"], "2-quiet": [], "3-bright": [SMALL], "4-smaller": []}
    assert script.named(wrong) == {"1-quiet": False, "2-quiet": True, "3-bright": False, "4-smaller": False}
    assert script.summary(
        {"1": {"named": script.named(right)}, "2": {"named": script.named(wrong)}, "3": {"failed": ""}}
    ) == {
        "products": 2,
        "failed": 1,
        "right": {"1-quiet": 1, "2-quiet": 2, "3-bright": 1, "4-smaller": 1},
    }


def test_changes_of_the_images(script: ModuleType) -> None:
    image = Image.fromarray(np.full((40, 60, 3), 100, dtype=np.uint8))
    changes = {name: change(image) for name, (change, _) in script.NIGHTS.items()}
    assert {name: changed.size for name, changed in changes.items()} == {
        "1-quiet": (60, 40),
        "2-quiet": (60, 40),
        "3-bright": (60, 40),
        "4-smaller": (45, 30),
    }
    assert {name: int(np.asarray(changed).max()) for name, changed in changes.items()} == {
        "1-quiet": 100,
        "2-quiet": 100,
        "3-bright": 135,
        "4-smaller": 100,
    }
