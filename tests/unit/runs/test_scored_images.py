"""Scored images of hand-written score rows."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from support.reports import rows_of, score_table

from uniad_ray.runs.reviews import Mark, MarkKind
from uniad_ray.runs.scored_images import ScoredImages, by_category, scored_images


def replaced(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    position = table.schema.get_field_index(column)
    return table.set_column(position, column, pa.array(values, type=table.schema.field(column).type))


def keys(images: ScoredImages) -> list[str]:
    return cast(list[str], images.row_keys.to_pylist())


def mark(row_key: str, kind: MarkKind, score: float = 1.0) -> Mark:
    return Mark(row_key, "part", kind, score, 0.5, "anna", "2026")


def test_decisions_and_labels_become_masks() -> None:
    rows = rows_of(score_table([0.4, 0.6, 0.4, 0.6, 0.9], ["normal", "normal", "anomalous", "anomalous", None]))
    assert rows.threshold == 0.5
    assert rows.called.tolist() == [False, True, False, True, True]
    assert rows.false_alarms.tolist() == [False, True, False, False, False]
    assert rows.misses.tolist() == [False, False, True, False, False]
    assert rows.unlabelled.tolist() == [False, False, False, False, True]
    assert rows.labels == ["normal", "normal", "anomalous", "anomalous", None]


def test_error_rows_and_other_splits_are_skipped() -> None:
    table = score_table([0.1, 0.2, 0.3], ["normal"] * 3)
    table = replaced(table, "split", ["train", "test", "test"])
    table = replaced(table, "status", ["ok", "ok", "error"])
    assert rows_of(table, "test").scores.tolist() == [0.2]
    assert rows_of(table, None).scores.tolist() == [0.1, 0.2]
    nothing = rows_of(table, "validation")
    assert (len(nothing), nothing.threshold, nothing.experts) == (0, 0.5, {})


def test_error_image_has_no_score() -> None:
    table = score_table([0.9, 0.9], ["anomalous"] * 2)
    for column, values in {"status": ["ok", "error"], "score": [0.9, None], "decision": ["anomalous", None]}.items():
        table = replaced(table, column, values)
    (images,) = by_category(table)
    assert images.scored.tolist() == [True, False]
    assert images.called.tolist() == [True, False]
    assert images.misses.tolist() == [False, False]
    assert np.isnan(images.scores[1])
    assert rows_of(table).scores.tolist() == [0.9]


def test_missing_expert_scores_are_nan() -> None:
    table = score_table([1.0, 2.0, 3.0], ["normal"] * 3)
    entries = table.column("experts").to_pylist()
    images = scored_images("part", replaced(table, "experts", [entries[0], [], entries[2][1:]]))
    np.testing.assert_array_equal(images.experts["patch"], [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(images.experts["student"], [0.5, np.nan, 1.5])
    np.testing.assert_array_equal(images.take(np.array([2, 0])).experts["student"], [1.5, 0.5])


def test_categories_are_separated_and_sorted() -> None:
    first = score_table([0.1, 0.9], ["normal", None], category="tray", threshold=0.2)
    second = score_table([0.3], ["anomalous"], category="lid", threshold=0.4)
    found = by_category(pa.concat_tables([first.slice(0, 1), second, first.slice(1)]))
    assert [(images.category, images.threshold, images.scores.tolist()) for images in found] == [
        ("lid", 0.4, [0.3]),
        ("tray", 0.2, [0.1, 0.9]),
    ]
    assert keys(found[1]) == ["tray-000000", "tray-000001"]


def test_positions_skip_unknown_keys() -> None:
    images = rows_of(score_table([1.0] * 5, [None] * 5))
    assert images.position("part-000004") == 4
    assert images.position("other") is None
    assert images.positions(["part-000003", "other", "part-000000"]) == {"part-000000": 0, "part-000003": 3}


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_shared_images_are_paired_by_key(order: list[int], first: set[int], second: set[int]) -> None:
    every = rows_of(score_table(list(range(6)), [None] * 6))
    one = every.take(np.array([at for at in order if at in first], dtype=np.intp))
    other = every.take(np.array(sorted(second), dtype=np.intp))
    here, there = one.shared(other)
    assert keys(here) == keys(there) == [f"part-{at:06d}" for at in order if at in first & second]
    assert here.scores.tolist() == there.scores.tolist() == [at for at in order if at in first & second]


def test_marks_replace_labels() -> None:
    table = score_table([0.1, 0.9, 0.9, 0.9, 0.9], ["normal", "anomalous", "anomalous", None, "anomalous"])
    table = replaced(table, "anomaly_type", [None, "logical", "structural", None, "logical"])
    images = rows_of(table)
    marks = {
        entry.row_key: entry
        for entry in (
            mark("part-000000", "miss"),
            mark("part-000001", "false_alarm"),
            mark("part-000002", "confirmed"),
            mark("part-000003", "confirmed", score=0.2),
            mark("of another category", "miss"),
        )
    }
    found = images.reviewed(marks)
    assert found.labels == ["anomalous", "normal", "anomalous", "normal", "anomalous"]
    assert found.anomaly_types == (None, None, "structural", None, "logical")
    assert found.details.column("defect_kind").to_pylist() == [None, None, "dent", None, "dent"]
    # The original images are unchanged.
    assert images.labels == ["normal", "anomalous", "anomalous", None, "anomalous"]
    assert images.anomaly_types == (None, "logical", "structural", None, "logical")
    assert images.reviewed({}).labels == images.labels
