"""Fields that some images lack: their way through a pipeline, and their stored form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from uniad_ray.perception.base import Perception
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.sidecars.encoding import decode_row, encode_rows

KEYS = ("a", "b", "c")
IMAGES = np.zeros((3, 4, 4, 3), dtype=np.uint8)


class Writer:
    """Test double: an extractor with given texts."""

    def __init__(self, texts: Sequence[str | Missing]) -> None:
        self.name = "caption"
        self.needs: frozenset[str] = frozenset()
        self.provides = frozenset({"caption/text"})
        self.texts = texts

    def extract(self, perception: Perception) -> dict[str, Any]:  # noqa: ARG002
        return {"caption/text": self.texts}

    def lineage(self) -> dict[str, Any]:
        return {}


class Length:
    """Test double: the length of each text as a tensor; fails on an empty text."""

    def __init__(self) -> None:
        self.name = "length"
        self.needs = frozenset({"caption/text"})
        self.provides = frozenset({"length/value"})

    def extract(self, perception: Perception) -> dict[str, Any]:
        assert all(perception.texts["caption/text"])
        values = [len(text) for text in perception.texts["caption/text"]]
        return {"length/value": torch.tensor(values, dtype=torch.float32)[:, None, None, None]}

    def lineage(self) -> dict[str, Any]:
        return {}


def extract(*texts: str | Missing) -> Perception:
    pipeline = PerceptionPipeline([Writer(texts), Length()])
    return pipeline.extract(KEYS, IMAGES, frozenset({"caption/text", "length/value"}))


def test_extractors_run_on_the_images_that_have_what_they_need() -> None:
    found = extract("pin", Missing("empty answer"), "nuts")

    assert found.missing == {"caption/text": {"b": "empty answer"}, "length/value": {"b": "empty answer"}}
    values = found.fields["length/value"].flatten()
    assert values[[0, 2]].tolist() == [3.0, 4.0]
    assert torch.isnan(values[1])
    assert found.lacking({"length/value"}) == {"b": "empty answer"}
    assert found.lacking({"other"}) == {}
    complete = found.complete({"length/value"})
    assert (list(complete.row_keys), complete.missing) == (["a", "c"], {})
    assert complete.fields["length/value"].flatten().tolist() == [3.0, 4.0]
    assert found.row(1).missing == {"caption/text": {"b": "empty answer"}, "length/value": {"b": "empty answer"}}


def test_a_field_that_all_images_lack_has_only_reasons() -> None:
    found = extract(*[Missing("no model")] * 3)

    assert found.names == {"caption/text", "length/value"}
    assert found.texts == {}
    assert found.fields == {}
    assert found.lacking({"length/value"}) == dict.fromkeys(KEYS, "no model")
    assert len(found.complete({"length/value"})) == 0


def test_a_stored_lack_is_read_again() -> None:
    rows = encode_rows("descriptions", extract("pin", Missing("empty answer"), "nuts").restricted({"caption/text"}))

    decoded = [decode_row("descriptions", row)["caption/text"] for row in rows]
    assert decoded == ["pin", Missing("empty answer"), "nuts"]
    nothing = extract(*[Missing("no model")] * 3).restricted({"caption/text"})
    assert decode_row("descriptions", encode_rows("descriptions", nothing)[2]) == {"caption/text": Missing("no model")}
