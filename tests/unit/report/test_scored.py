"""Which rows of a run a report judges."""

from __future__ import annotations

import pyarrow as pa
from support.reports import rows_of, score_table

from uniad_ray.report.scored import scored_rows


def test_decisions_and_labels_become_masks() -> None:
    rows = rows_of(score_table([0.4, 0.6, 0.4, 0.6, 0.9], ["normal", "normal", "anomalous", "anomalous", None]))
    assert rows.threshold == 0.5
    assert rows.called.tolist() == [False, True, False, True, True]
    assert rows.false_alarms.tolist() == [False, True, False, False, False]
    assert rows.misses.tolist() == [False, False, True, False, False]
    assert rows.unlabelled.tolist() == [False, False, False, False, True]


def test_rows_with_an_error_and_rows_of_other_splits_are_left_out() -> None:
    table = score_table([0.1, 0.2, 0.3], ["normal"] * 3)
    table = replaced(table, "split", ["train", "test", "test"])
    table = replaced(table, "status", ["ok", "ok", "error"])
    assert rows_of(table, "test").scores.tolist() == [0.2]
    assert rows_of(table, None).scores.tolist() == [0.1, 0.2]
    assert scored_rows(table, "validation") is None


def test_errors_have_no_score_to_trip_over() -> None:
    table = score_table([0.1, 0.2], ["normal"] * 2)
    table = replaced(table, "status", ["ok", "error"])
    table = replaced(table, "score", [0.1, None])
    table = replaced(table, "decision", ["normal", None])
    assert rows_of(table).scores.tolist() == [0.1]


def replaced(table: pa.Table, column: str, values: list[object]) -> pa.Table:
    position = table.schema.get_field_index(column)
    return table.set_column(position, column, pa.array(values, type=table.schema.field(column).type))
