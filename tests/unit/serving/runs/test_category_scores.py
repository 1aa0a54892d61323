"""Filters and threshold previews against a slow, plain implementation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.runs.reviews import Mark
from uniad_ray.runs.scored_images import scored_images
from uniad_ray.serving.runs.category_scores import CategoryScores, Decision, MarkFilter, Order, RowFilter, Status

THRESHOLD = 2.0
# Few values: scores coincide with each other and with the thresholds.
SCORES = st.sampled_from([-1.0, 0.5, 2.0, 2.5, 3.0, 7.0])
LIMITS = st.none() | st.sampled_from([-2.0, 0.5, 2.0, 2.7, 9.0])
ROWS = st.lists(st.tuples(st.none() | SCORES, st.sampled_from([None, "normal", "anomalous"])), min_size=1, max_size=12)
KINDS = st.sampled_from([None, "false_alarm", "miss", "confirmed"])
FILTERS = st.builds(
    RowFilter,
    decision=st.none() | st.sampled_from(get_args(Decision)),
    mark=st.none() | st.sampled_from(get_args(MarkFilter)),
    status=st.none() | st.sampled_from(get_args(Status)),
    min_score=LIMITS,
    max_score=LIMITS,
    threshold=LIMITS,
    order=st.sampled_from(get_args(Order)),
)
Row = tuple[float | None, str | None]


def scores_of(rows: list[Row]) -> CategoryScores:
    table = pa.table(
        {
            "row_key": [f"key{index}" for index in range(len(rows))],
            "label": pa.array([label for _, label in rows], pa.string()),
            "status": ["error" if score is None else "ok" for score, _ in rows],
            "score": pa.array([score for score, _ in rows], pa.float64()),
            "threshold": [THRESHOLD] * len(rows),
        }
    )
    # As if read from several files.
    return CategoryScores(scored_images("part", pa.concat_tables([table.slice(0, 3), table.slice(3)])))


def marks_of(rows: list[Row], kinds: list[Any]) -> dict[int, Mark]:
    return {
        at: Mark(f"key{at}", "part", kind, score, THRESHOLD, "anna", "2026")
        for at, ((score, _), kind) in enumerate(zip(rows, kinds, strict=False))
        if kind is not None and score is not None
    }


def taken(asked: RowFilter, score: float | None, mark: Mark | None) -> bool:
    threshold = THRESHOLD if asked.threshold is None else asked.threshold
    if asked.status is not None and (score is None) != (asked.status == "error"):
        return False
    if asked.mark == "any" and mark is None:
        return False
    if asked.mark == "none" and mark is not None:
        return False
    if asked.mark not in (None, "any", "none") and (mark is None or mark.mark != asked.mark):
        return False
    if score is None:
        return asked.decision is None and asked.min_score is None and asked.max_score is None
    decision = "anomalous" if score > threshold else "normal"
    return (
        asked.decision in (None, decision)
        and (asked.min_score is None or score >= asked.min_score)
        and (asked.max_score is None or score <= asked.max_score)
    )


@given(ROWS, st.lists(KINDS, max_size=12), FILTERS)
def test_filters_and_orders_match_plain_implementation(
    rows: list[Row], kinds: list[str | None], asked: RowFilter
) -> None:
    marks = marks_of(rows, kinds)
    threshold = THRESHOLD if asked.threshold is None else asked.threshold
    places: dict[str, Callable[[float], tuple[float, ...]]] = {
        "highest": lambda score: (-score,),
        "lowest": lambda score: (score,),
        "threshold": lambda score: (abs(score - threshold), score),
        "archive": lambda _: (),
    }

    def place(at: int) -> tuple[float, ...]:
        score = rows[at][0]
        if asked.order == "archive":
            return (at,)
        return (1, at) if score is None else (0, *places[asked.order](score), at)

    wanted = sorted((at for at, (score, _) in enumerate(rows) if taken(asked, score, marks.get(at))), key=place)
    assert scores_of(rows).select(asked, marks).tolist() == wanted


@given(ROWS, st.lists(KINDS, max_size=12), st.sampled_from([-9.0, 0.5, 2.0, 2.2, 3.0, 7.0, 8.0]))
def test_what_if_matches_plain_count(rows: list[Row], kinds: list[str | None], threshold: float) -> None:
    marks = marks_of(rows, kinds)
    labelled = [
        (score, marks[at].label if at in marks else label)
        for at, (score, label) in enumerate(rows)
        if score is not None
    ]
    change = scores_of(rows).what_if(threshold, marks)
    assert change.anomalous_before == sum(score > THRESHOLD for score, _ in labelled)
    assert change.anomalous_after == sum(score > threshold for score, _ in labelled)
    assert change.normal_labels == sum(label == "normal" for _, label in labelled)
    assert change.anomalous_labels == sum(label == "anomalous" for _, label in labelled)
    if not any(label for _, label in labelled):
        assert change.before is change.after is None
        return
    for at, found in ((THRESHOLD, change.before), (threshold, change.after)):
        assert found is not None
        assert found.false_alarms == sum(label == "normal" and score > at for score, label in labelled)
        assert found.misses == sum(label == "anomalous" and score <= at for score, label in labelled)


def test_marks_of_other_categories_are_ignored() -> None:
    scores = scores_of([(1.0, None)] * 5)
    mark = Mark("key2", "part", "miss", 1.0, THRESHOLD, "anna", "2026")
    stranger = replace(mark, row_key="of another category")
    for _ in range(2):
        assert scores.by_position({"key2": mark, stranger.row_key: stranger}) == {2: mark}


def test_million_rows_take_milliseconds() -> None:
    rows = 1_000_000
    generator = np.random.default_rng(0)
    table = pa.table(
        {
            "row_key": pa.array(np.arange(rows).astype(str)),
            "label": pa.array(np.where(np.arange(rows) % 9 == 0, "anomalous", "normal")),
            "status": pa.array(np.full(rows, "ok")),
            "score": generator.normal(size=rows),
            "threshold": np.full(rows, THRESHOLD),
        }
    )
    scores = CategoryScores(scored_images("part", table))
    marks = {at: Mark(str(at), "part", "miss", 0.0, THRESHOLD, "anna", "2026") for at in range(0, rows, 2000)}

    def seconds(action: Any) -> float:
        times = []
        for _ in range(5):
            started = time.thread_time()
            action()
            times.append(time.thread_time() - started)
        return min(times)

    # In seconds of computing, whatever else the machine does; counting a million rows again would take longer.
    assert seconds(lambda: scores.what_if(1.5, marks)) < 0.02
    assert seconds(lambda: scores.select(RowFilter(decision="anomalous"), marks)) < 0.5
