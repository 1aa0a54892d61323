from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from support.scripts import load_script

BRIGHT = "product-1: images are brighter than in the images of the fit: median brightness 178 of 255, was 131"
BLURRED = "product-1: images look different than in the images of the fit: their features moved by 2.0 standard"
SMALL = "product-1: image size changed: 48 x 48 pixels tonight, 64 x 64 pixels in the last nights"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    return load_script("benchmarks/nights.py")


def test_changed_nights_need_an_alarm_that_names_the_change(script: ModuleType) -> None:
    right = {
        "1-quiet": [],
        "2-quiet": [],
        "3-bright": ["scores are higher", BRIGHT],
        "4-smaller": [SMALL],
        "5-blurred": [BLURRED],
    }
    assert script.named(right) == dict.fromkeys(right, True)
    wrong = {
        "1-quiet": ["scores are higher"],
        "2-quiet": [],
        "3-bright": [SMALL],
        "4-smaller": [],
        "5-blurred": [SMALL],
    }
    assert script.named(wrong) == {name: name == "2-quiet" for name in right}
    assert script.summary(
        {"1": {"named": script.named(right)}, "2": {"named": script.named(wrong)}, "3": {"failed": ""}}
    ) == {
        "products": 2,
        "failed": 1,
        "right": {"1-quiet": 1, "2-quiet": 2, "3-bright": 1, "4-smaller": 1, "5-blurred": 1},
    }


def test_changes_of_the_images(script: ModuleType) -> None:
    image = Image.fromarray(np.full((40, 600, 3), 100, dtype=np.uint8))
    image.putpixel((300, 20), (140, 140, 140))
    changes = {name: change(image) for name, (change, _) in script.NIGHTS.items()}
    assert {name: changed.size for name, changed in changes.items()} == {
        "1-quiet": (600, 40),
        "2-quiet": (600, 40),
        "3-bright": (600, 40),
        "4-smaller": (450, 30),
        "5-blurred": (600, 40),
    }
    assert {name: int(np.median(np.asarray(changed))) for name, changed in changes.items()} == {
        "1-quiet": 100,
        "2-quiet": 100,
        "3-bright": 135,
        "4-smaller": 100,
        "5-blurred": 100,
    }
    assert np.asarray(changes["1-quiet"]).max() == 140
    assert 100 < np.asarray(changes["5-blurred"]).max() < 110
