from __future__ import annotations

import numpy as np

from uniad_ray.perception.base import Perception
from uniad_ray.perception.object_describer import ObjectDescriber, ObjectDescriberConfig
from uniad_ray.perception.segments import Segments


def described(names: list[str], **changes: object) -> str:
    masks = np.zeros((len(names), 40, 40), dtype=bool)
    for number, mask in enumerate(masks):
        mask[2:6, 2 + 10 * number : 6 + 10 * number] = True
    segments = Segments.of(masks).named(names)
    options = {"segments": "named/segments", **changes}
    describer = ObjectDescriber("description", ObjectDescriberConfig.model_validate(options), "cpu")
    perception = Perception(["a"], np.zeros((1, 40, 40, 3), dtype=np.uint8), segments={"named/segments": [segments]})
    return describer.perceive(perception)["description/text"][0]


def test_objects_are_described_but_for_those_left_out() -> None:
    assert described(["bolt", "other", "nut"]) == "1 bolt: top left; 1.00 %\n1 nut: top centre; 1.00 %"


def test_what_is_left_out_and_how_soft_lines_are_can_be_chosen() -> None:
    assert described(["bolt", "other", "nut"], left_out=["bolt"], softness=0.1) == (
        "1 nut: top centre or top right; 1.00 %\n1 other: top left or top centre; 1.00 %"
    )


def test_an_image_without_objects_has_an_empty_text() -> None:
    assert described([]) == ""
    assert described(["other"]) == ""
