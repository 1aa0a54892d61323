from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.chat_server import ChatServer, chat_server
from support.named_squares import squares
from support.profiles import small_config

from uniad_ray.config.loading import validate
from uniad_ray.errors import CaptionError, ConfigError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.text.object_describer import ObjectDescriber, ObjectDescriberConfig
from uniad_ray.perception.text.vlm_positions import POSITIONS_PROMPT, positions_prompt
from uniad_ray.scoring.factory import build_pipeline


def perception_of(*images: list[str]) -> Perception:
    keys = [f"image-{number}" for number in range(len(images))]
    pixels = np.zeros((len(images), 40, 40, 3), dtype=np.uint8)
    return Perception(keys, pixels, segments={"named/segments": [squares(names) for names in images]})


def describer(**changes: object) -> ObjectDescriber:
    options = {"segments": "named/segments", **changes}
    return ObjectDescriber("description", ObjectDescriberConfig.model_validate(options), "cpu")


def described(names: list[str], **changes: object) -> str:
    return describer(**changes).extract(perception_of(names))["description/text"][0]


def test_left_out_objects_are_not_described() -> None:
    assert described(["bolt", "other", "nut"]) == "1 bolt: top left; 1.00 %\n1 nut: top centre; 1.00 %"


def test_left_out_and_softness_are_options() -> None:
    assert described(["bolt", "other", "nut"], left_out=["bolt"], softness=0.1) == (
        "1 nut: top centre or top right; 1.00 %\n1 other: top left or top centre; 1.00 %"
    )


def test_no_objects_give_an_empty_text() -> None:
    assert described([]) == ""
    assert described(["other"]) == ""


@pytest.fixture
def fake() -> Iterator[ChatServer]:
    with chat_server(lambda asked: "bolt: bottom right\nnut: somewhere") as server:  # noqa: ARG005
        yield server


def asking(fake: ChatServer, **changes: object) -> dict[str, Any]:
    """Options of a describer that queries a server."""
    return {"positions": "vlm", "captioner": {"kind": "server", "url": fake.url, "model": "m", **changes}}


def test_model_positions_fall_back_to_the_grid(fake: ChatServer) -> None:
    assert described(["bolt", "nut"], **asking(fake)) == (
        "1 bolt: bottom right; 1.00 %\n1 nut: top left or top centre; 1.00 %"
    )
    assert [asked.prompt for asked in fake.asked] == [positions_prompt({"bolt", "nut"})]


def test_requests_are_grouped_by_classes(fake: ChatServer) -> None:
    fake.answer = lambda asked: "bolt: middle left"  # noqa: ARG005
    images = (["bolt", "other"], [], ["bolt"], ["nut", "bolt"], ["other"])
    found = describer(**asking(fake)).extract(perception_of(*images))["description/text"]

    assert Counter(asked.prompt for asked in fake.asked) == {
        positions_prompt({"bolt"}): 2,
        positions_prompt({"bolt", "nut"}): 1,
    }
    assert [text.partition(";")[0] for text in found] == [
        "1 bolt: middle left",
        "",
        "1 bolt: middle left",
        "1 bolt: middle left",
        "",
    ]


def test_model_positions_from_configuration(fake: ChatServer) -> None:
    """Builds the extractors from a profile, as fits and runs do."""
    options = {"segments": "squares/segments", **asking(fake)}
    config = small_config(
        "extractors.squares={class: 'support.named_squares:NamedSquares', config: {names: [bolt, nut]}}",
        f"extractors.words={{class: 'uniad_ray.perception.text.object_describer:ObjectDescriber', config: {options}}}",
    )
    pipeline = build_pipeline(config, [("words/text", "expert x")], device="cpu", check_unused=False)
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, 40, 40, 3), dtype=np.uint8)

    found = pipeline.extract(["a", "b"], pixels, frozenset({"words/text"}))
    assert found.texts["words/text"] == ["1 bolt: bottom right; 1.00 %\n1 nut: top left or top centre; 1.00 %"] * 2
    assert sorted(asked.image.sum() for asked in fake.asked) == sorted(image.sum() for image in pixels)


def test_table_positions_match_row_and_prompt(tmp_path: Path) -> None:
    rows = {
        "row_key": ["image-0", "image-1"],
        "prompt": [positions_prompt({"bolt"}), positions_prompt({"nut"})],
        "text": ["bolt: bottom right", "nut: middle centre"],
    }
    pq.write_table(pa.table(rows), tmp_path / "answers.parquet")
    options = {"positions": "vlm", "captioner": {"kind": "table", "source": str(tmp_path / "answers.parquet")}}

    found = describer(**options).extract(perception_of(["bolt"], ["nut"]))["description/text"]
    assert found == ["1 bolt: bottom right; 1.00 %", "1 nut: middle centre; 1.00 %"]
    (lacking,) = describer(**options).extract(perception_of(["nut"]))["description/text"]
    assert isinstance(lacking, Missing)
    with pytest.raises(CaptionError, match=r"has no captions for the prompt 'The image shows: washer\.'"):
        describer(**options).extract(perception_of(["washer"]))


def test_positions_by_a_model_need_one() -> None:
    with pytest.raises(ConfigError, match=r"positions: vlm needs .* configure captioner, or use positions: grid"):
        validate(ObjectDescriberConfig, {"segments": "named/segments", "positions": "vlm"}, where="profile p")


def test_lineage_names_the_model_if_used(fake: ChatServer) -> None:
    lineage = describer(**asking(fake)).lineage()

    assert lineage["captioner"]["url"] == fake.url
    assert lineage["prompt"] == POSITIONS_PROMPT
    assert describer(**{**asking(fake), "positions": "grid"}).lineage() == describer().lineage()
