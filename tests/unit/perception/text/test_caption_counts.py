from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from uniad_ray.perception.base import AskingExtractor, Perception
from uniad_ray.perception.captions.structure import structured_prompt
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.caption_counts import CaptionCounter, CaptionCounterConfig

CLASSES = ("bolt", "nut", "washer")
IMAGES = np.zeros((4, 8, 8, 3), np.uint8)
KEYS = ("a", "b", "c", "d")


def answer(*objects: tuple[str, int]) -> str:
    return json.dumps({"objects": [{"class": name, "count": n, "positions": ["top left"]} for name, n in objects]})


@pytest.fixture
def captions(tmp_path: Path) -> dict[str, Any]:
    """Captions of three of four images, one of them no JSON."""
    texts = [answer(("washer", 2), ("bolt", 1)), answer(("nut", 1), ("nut", 1)), "two nuts"]
    prompt = structured_prompt(CLASSES)
    table = pa.table({"row_key": list(KEYS[:3]), "prompt": [prompt] * 3, "text": texts})
    pq.write_table(table, tmp_path / "captions.parquet")
    return {"kind": "table", "source": str(tmp_path / "captions.parquet")}


def counter(captions: dict[str, Any], **options: Any) -> CaptionCounter:
    document = {"captioner": captions, "classes": CLASSES, **options}
    return CaptionCounter("counts", CaptionCounterConfig.model_validate(document), "cpu")


def test_every_class_has_a_sentence_and_missing_stays_missing(captions: dict[str, Any]) -> None:
    found = counter(captions).extract(Perception(KEYS, IMAGES))["counts/text"]
    assert found[:2] == ["1 bolt. 0 nut. 2 washer.", "0 bolt. 2 nut. 0 washer."]
    assert isinstance(found[2], Missing)
    assert "does not follow the schema" in found[2].reason
    assert isinstance(found[3], Missing)


def test_another_number_than_the_segments_is_a_sentence(captions: dict[str, Any]) -> None:
    masks = np.eye(8, dtype=bool)[:, None, :].repeat(8, axis=1)
    segments = [Segments.of(masks[:number]) for number in (3, 4, 1, 1)]
    describer = counter(captions, segments="parts/segments")
    assert describer.needs == {"parts/segments"}
    found = describer.extract(Perception(KEYS, IMAGES, segments={"parts/segments": segments}))["counts/text"]
    assert found[0] == "1 bolt. 0 nut. 2 washer. As many objects as segments."
    assert found[1] == "0 bolt. 2 nut. 0 washer. 2 objects fewer than segments."


def test_counter_is_asked_like_other_describers(captions: dict[str, Any]) -> None:
    describer = counter(captions)
    assert isinstance(describer, AskingExtractor)
    assert describer.lineage()["classes"] == list(CLASSES)
    assert describer.lineage()["captioner"]["sha256"]


def test_classes_are_needed(captions: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        counter(captions, classes=())
