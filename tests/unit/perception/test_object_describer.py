from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.captioners import Captioner, CaptionTable
from uniad_ray.perception.object_describer import ObjectDescriber, ObjectDescriberConfig
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.vlm_positions import positions_prompt


def perception_of(*images: list[str]) -> Perception:
    keys = [f"image-{number}" for number in range(len(images))]
    pixels = np.zeros((len(images), 40, 40, 3), dtype=np.uint8)
    return Perception(keys, pixels, segments={"named/segments": [segments_of(names) for names in images]})


def segments_of(names: list[str]) -> Segments:
    masks = np.zeros((len(names), 40, 40), dtype=bool)
    for number, mask in enumerate(masks):
        mask[2:6, 2 + 10 * number : 6 + 10 * number] = True
    return Segments.of(masks).named(names)


def describer(captioner: Captioner | None = None, **changes: object) -> ObjectDescriber:
    options = {"segments": "named/segments", **changes}
    return ObjectDescriber("description", ObjectDescriberConfig.model_validate(options), "cpu", captioner)


def described(names: list[str], **changes: object) -> str:
    return describer(**changes).perceive(perception_of(names))["description/text"][0]


def test_objects_are_described_but_for_those_left_out() -> None:
    assert described(["bolt", "other", "nut"]) == "1 bolt: top left; 1.00 %\n1 nut: top centre; 1.00 %"


def test_what_is_left_out_and_how_soft_lines_are_can_be_chosen() -> None:
    assert described(["bolt", "other", "nut"], left_out=["bolt"], softness=0.1) == (
        "1 nut: top centre or top right; 1.00 %\n1 other: top left or top centre; 1.00 %"
    )


def test_an_image_without_objects_has_an_empty_text() -> None:
    assert described([]) == ""
    assert described(["other"]) == ""


class AskedTable(CaptionTable):
    """A table of answers that keeps what was asked."""

    def __init__(self, texts: dict[str, str]) -> None:
        super().__init__(texts, "answers.json")
        self.asked: list[tuple[Sequence[str], str]] = []

    def captions(self, row_keys: Sequence[str], images: np.ndarray, prompt: str) -> Sequence[str]:
        assert len(images) == len(row_keys)
        self.asked.append((row_keys, prompt))
        return super().captions(row_keys, images, prompt)


def test_positions_are_those_that_the_model_says_and_those_of_the_grid_where_it_says_none() -> None:
    table = AskedTable({"image-0": "bolt: bottom right\nnut: somewhere"})
    found = describer(table, positions="vlm").perceive(perception_of(["bolt", "nut"]))["description/text"]

    assert found == ["1 bolt: bottom right; 1.00 %\n1 nut: top left or top centre; 1.00 %"]


def test_images_with_the_same_classes_are_asked_about_together_and_those_without_objects_not_at_all() -> None:
    table = AskedTable({f"image-{number}": "bolt: middle left" for number in range(5)})
    images = (["bolt", "other"], [], ["bolt"], ["nut", "bolt"], ["other"])
    found = describer(table, positions="vlm").perceive(perception_of(*images))["description/text"]

    assert table.asked == [
        (["image-0", "image-2"], positions_prompt({"bolt"})),
        (["image-3"], positions_prompt({"bolt", "nut"})),
    ]
    assert [text.partition(";")[0] for text in found] == [
        "1 bolt: middle left",
        "",
        "1 bolt: middle left",
        "1 bolt: middle left",
        "",
    ]


def test_positions_by_a_model_need_one() -> None:
    with pytest.raises(ConfigError, match=r"description: .* no captioner is configured; use positions: grid"):
        describer(positions="vlm")


def test_the_lineage_names_the_model_where_it_is_asked() -> None:
    table = AskedTable({})

    assert describer(table, positions="vlm").lineage()["captioner"] == {"source": "answers.json"}
    assert "captioner" not in describer(table).lineage()
