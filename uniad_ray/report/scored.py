"""The scored rows of one category as arrays: what histogram, curves, experts and gallery are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = (
    "row_key",
    "source_uri",
    "category",
    "split",
    "label",
    "defect_kind",
    "anomaly_type",
    "status",
    "error_kind",
    "error",
    "experts",
    "score",
    "threshold",
    "decision",
    "reasons",
)
"""Columns of schema `score` that a report needs."""


@dataclass(frozen=True)
class ScoredRows:
    """N rows of one category that have a score.

    Attributes:
        table: Their columns, as in `COLUMNS`.
        scores: float64, shape (N,).
        threshold: A score above it is called anomalous.
        called: bool, shape (N,): called anomalous.
        normal: bool, shape (N,): label normal.
        anomalous: bool, shape (N,): label anomalous.
    """

    table: pa.Table
    scores: npt.NDArray[np.float64]
    threshold: float
    called: npt.NDArray[np.bool_]
    normal: npt.NDArray[np.bool_]
    anomalous: npt.NDArray[np.bool_]

    @property
    def unlabelled(self) -> npt.NDArray[np.bool_]:
        """bool, shape (N,): no label."""
        return ~(self.normal | self.anomalous)

    @property
    def false_alarms(self) -> npt.NDArray[np.bool_]:
        """bool, shape (N,): normal images called anomalous."""
        return self.normal & self.called

    @property
    def misses(self) -> npt.NDArray[np.bool_]:
        """bool, shape (N,): anomalous images called normal."""
        return self.anomalous & ~self.called


def scored_rows(table: pa.Table, split: str | None) -> ScoredRows | None:
    """Takes the rows with a score, of one split or of all.

    Args:
        table: Rows of one category with the columns in `COLUMNS`.
        split: Only of this split; None takes all.

    Returns:
        None where no such row has a score.
    """
    wanted = pc.equal(table.column("status"), "ok")
    if split is not None:
        wanted = pc.and_(wanted, pc.equal(table.column("split"), split))
    rows = table.filter(wanted).combine_chunks()
    if not rows.num_rows:
        return None
    return ScoredRows(
        table=rows,
        scores=rows.column("score").to_numpy().astype(np.float64),
        threshold=float(rows.column("threshold")[0].as_py()),
        called=_equals(rows, "decision", "anomalous"),
        normal=_equals(rows, "label", "normal"),
        anomalous=_equals(rows, "label", "anomalous"),
    )


def _equals(table: pa.Table, column: str, value: str) -> npt.NDArray[np.bool_]:
    found = pc.fill_null(pc.equal(table.column(column), value), False)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)
