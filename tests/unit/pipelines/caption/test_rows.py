"""Rows of a caption sidecar without Ray: retries, errors of answers, and rows from `ray.data.llm`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from uniad_ray.errors import CaptionError
from uniad_ray.perception.captions.base import Answer
from uniad_ray.perception.captions.engine import CaptionEngineConfig
from uniad_ray.perception.captions.structure import answer_schema
from uniad_ray.pipelines.caption.engines import EngineConfig
from uniad_ray.pipelines.caption.ray_llm import _row
from uniad_ray.pipelines.caption.rows import (
    answer_row,
    ask_with_retry,
    caption_table,
    decoded,
    is_worth_a_retry,
    undecodable_row,
)
from uniad_ray.sidecars.captions import CaptionPlan, caption_plan

IMAGES = [np.full((4, 4, 3), value, dtype=np.uint8) for value in range(3)]
GOOD = json.dumps({"objects": [{"class": "bolt", "count": 1, "positions": ["top left"]}]})


def plan(structured: bool = False) -> CaptionPlan:
    classes = ("bolt",) if structured else ()
    return caption_plan("server", {"model": "m"}, "?", classes, answer_schema(classes) if structured else None)


class Model:
    """Test double: gives the next list of answers and records the questions."""

    def __init__(self, *answers: list[Answer]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[list[int], int | None]] = []

    def __call__(self, images: Sequence[np.ndarray], max_tokens: int | None) -> list[Answer]:
        self.asked.append(([int(image[0, 0, 0]) for image in images], max_tokens))
        return self.answers.pop(0)


def test_empty_and_cut_answers_are_asked_again_with_more_tokens() -> None:
    model = Model(
        [Answer("one"), Answer("", "empty", "nothing"), Answer("thr", "cut", "too long")],
        [Answer("two"), Answer("three")],
    )
    found = ask_with_retry(IMAGES, plan(), model, 100)
    assert [(answer.text, attempts) for answer, attempts in found] == [("one", 1), ("two", 2), ("three", 2)]
    assert model.asked == [([0, 1, 2], None), ([1, 2], 200)]


def test_answer_that_stays_empty_is_an_error_row() -> None:
    silent = Answer("", "empty", "nothing", tokens=0)
    ((answer, attempts),) = ask_with_retry(IMAGES[:1], plan(), Model([silent], [silent]), 100)
    row = answer_row("a", answer, attempts, plan())
    assert (row["status"], row["error_kind"], row["error"], row["attempts"]) == ("error", "empty", "nothing", 2)
    assert is_worth_a_retry(row)
    assert caption_table([row]).num_rows == 1


def test_rejections_of_all_images_end_the_job_and_single_ones_do_not() -> None:
    rejected = Answer("", "rejected", "too many tokens")
    found = ask_with_retry(IMAGES[:2], plan(), Model([Answer("one"), rejected]), 100)
    assert [answer.error_kind for answer, _ in found] == [None, "rejected"]
    assert ask_with_retry(IMAGES[:1], plan(), Model([rejected]), 100) == [(rejected, 1)]
    with pytest.raises(CaptionError, match="too many tokens"):
        ask_with_retry(IMAGES[:2], plan(), Model([rejected, rejected]), 100)


def test_structured_answers_are_checked_and_parsed() -> None:
    model = Model([Answer("no JSON"), Answer(GOOD)], [Answer("still none")])
    (bad, attempts), (good, _) = ask_with_retry(IMAGES[:2], plan(structured=True), model, 100)
    assert (bad.error_kind, attempts) == ("schema", 2)
    row = answer_row("a", good, 1, plan(structured=True))
    assert row["objects"] == [{"class": "bolt", "count": 1, "positions": ["top left"]}]
    assert answer_row("a", bad, 2, plan(structured=True))["objects"] is None


def test_undecodable_image_is_a_row_that_is_not_asked_again() -> None:
    images, errors = decoded([b"no image"], 64, None)
    assert images == {}
    row = undecodable_row("a", errors[0], plan())
    assert (row["status"], row["error_kind"], row["attempts"]) == ("error", "not_an_image", 0)
    assert not is_worth_a_retry(row)
    assert caption_table([row]).num_rows == 1


def test_digests_change_with_model_and_prompt() -> None:
    base = caption_plan("vllm", {"weights": {"uri": "file:/a", "sha256": "1"}, "max_tokens": 5}, "?", (), None)
    moved = caption_plan("ray", {"weights": {"uri": "s3://b/a", "sha256": "1"}, "max_tokens": 5}, "?", (), None)
    other = caption_plan("vllm", {"weights": {"uri": "file:/a", "sha256": "2"}, "max_tokens": 5}, "?", (), None)
    assert base.model_digest == moved.model_digest != other.model_digest
    assert base.prompt_digest == other.prompt_digest != plan(structured=True).prompt_digest


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"text": " "}, "empty"),
        ({"tokens": 9}, "cut"),
        ({"failure": "ValueError: too long\nmore"}, "rejected"),
        ({"error_kind": "truncated", "error": "PNG: ends early"}, "truncated"),
    ],
)
def test_rows_of_ray_data_become_rows_of_the_sidecar(changes: dict[str, Any], kind: str | None) -> None:
    weights = {"uri": "file:/m"}
    config = EngineConfig(
        kind="ray", model=CaptionEngineConfig.model_validate({"kind": "vllm", "weights": weights, "max_tokens": 9})
    )
    found = {"chunk": "c", "row_key": "a", "text": "a bolt", "prompt_tokens": 7, "tokens": 3, "seconds": 0.5}
    row = _row({**found, "error_kind": "", "error": "", "failure": "", **changes}, plan(), config)
    assert row["error_kind"] == kind
    assert caption_table([row]).num_rows == 1
    if kind is None:
        assert (row["text"], row["prompt_tokens"], row["tokens"]) == ("a bolt", 7, 3)
    if kind == "rejected":
        assert row["error"] == "caption: vLLM failed: ValueError: too long"
