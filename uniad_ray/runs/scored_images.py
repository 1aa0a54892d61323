"""The scored images of a category: one model for evaluation, report, comparison and the runs page."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.runs.reviews import Mark

COLUMNS: Final = ("row_key", "label", "status", "score", "threshold")
"""Required columns of schema `score`; as arrays they take about 70 bytes per row."""
_AS_ARRAYS: Final = frozenset({"label", "status", "score", "threshold", "category"})
_OF_ANOMALIES: Final = ("defect_kind", "anomaly_type")
"""Columns that apply only to anomalous images."""

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """N images of one category with their scores and labels.

    Attributes:
        category: The category.
        threshold: Scores above it are anomalous; NaN for a category without rows.
        scores: float64, shape (N,); NaN for images that could not be scored.
        normal: bool, shape (N,): label normal.
        anomalous: bool, shape (N,): label anomalous.
        details: N rows: `row_key`, and the other columns of schema `score` that were read.
    """

    category: str
    threshold: float
    scores: npt.NDArray[np.float64]
    normal: Mask
    anomalous: Mask
    details: pa.Table

    def __len__(self) -> int:
        """Number of images, N."""
        return len(self.scores)

    @cached_property
    def row_keys(self) -> pa.StringArray:
        """Keys of the N image rows."""
        return self.details.column("row_key").combine_chunks()

    @cached_property
    def scored(self) -> Mask:
        """bool, shape (N,): has a score."""
        return ~np.isnan(self.scores)

    @property
    def called(self) -> Mask:
        """bool, shape (N,): score above the threshold."""
        return np.asarray(self.scores > self.threshold)

    @property
    def unlabelled(self) -> Mask:
        """bool, shape (N,): no label."""
        return ~(self.normal | self.anomalous)

    @property
    def false_alarms(self) -> Mask:
        """bool, shape (N,): normal images called anomalous."""
        return self.normal & self.called

    @property
    def misses(self) -> Mask:
        """bool, shape (N,): anomalous images called normal."""
        return self.anomalous & self.scored & ~self.called

    @property
    def labels(self) -> list[str | None]:
        """N labels: `normal`, `anomalous` or None."""
        return [
            "anomalous" if bad else "normal" if good else None
            for good, bad in zip(self.normal, self.anomalous, strict=True)
        ]

    @cached_property
    def anomaly_types(self) -> tuple[str | None, ...]:
        """N anomaly types: `logical`, `structural` or None; requires the column `anomaly_type`."""
        return tuple(self.details.column("anomaly_type").to_pylist())

    @cached_property
    def experts(self) -> dict[str, npt.NDArray[np.float64]]:
        """Calibrated scores by expert, each float64 of shape (N,); requires the column `experts`.

        NaN for images without a score of the expert.
        """
        nested = self.details.column("experts").combine_chunks()
        owners = pc.list_parent_indices(nested).to_numpy()
        entries = pc.list_flatten(nested)
        names = entries.field("expert").to_numpy(zero_copy_only=False)
        values = entries.field("calibrated").to_numpy()
        found = {}
        for name in dict.fromkeys(names.tolist()):
            own = names == name
            found[name] = np.full(len(self), np.nan)
            found[name][owners[own]] = values[own]
        return found

    def equals(self, column: str, value: str) -> Mask:
        """bool, shape (N,): a column of `details` equals a value."""
        return _equals(self.details, column, value)

    def take(self, chosen: Mask | Positions) -> Self:
        """Select images by a mask, or by positions in the given order."""
        positions = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return replace(
            self,
            scores=self.scores[positions],
            normal=self.normal[positions],
            anomalous=self.anomalous[positions],
            details=self.details.take(pa.array(positions, pa.int64())),
        )

    def with_score(self, split: str | None = None) -> Self:
        """Select the images that have a score, of one split or of all."""
        return self.take(self.scored if split is None else self.scored & self.equals("split", split))

    def shared(self, other: Self) -> tuple[Self, Self]:
        """Select the images that are in both, from `self` and from `other`, each in the order of `self`."""
        found = pc.index_in(self.row_keys, value_set=other.row_keys)
        held = found.is_valid().to_numpy(zero_copy_only=False)
        return self.take(held), other.take(found.drop_null().to_numpy())

    def position(self, row_key: str) -> int | None:
        """Position of an image, or None."""
        found = pc.index(self.row_keys, pa.scalar(row_key, pa.string())).as_py()
        return None if found < 0 else int(found)

    def positions(self, row_keys: Collection[str]) -> dict[str, int]:
        """Positions of some images by key; unknown keys are absent."""
        wanted = pa.array(list(row_keys), pa.string())
        held = np.flatnonzero(pc.is_in(self.row_keys, value_set=wanted).to_numpy(zero_copy_only=False))
        return dict(zip(self.row_keys.take(pa.array(held)).to_pylist(), held.tolist(), strict=True))

    def reviewed(self, marks: Mapping[str, Mark]) -> Self:
        """Return the same images with the labels of the marks applied.

        An image that stays anomalous keeps its defect kind and anomaly type; a normal image has none.

        Args:
            marks: Marks by row key; marks of other images are ignored.
        """
        found = self.positions(marks)
        if not found:
            return self
        at = np.array(list(found.values()), dtype=np.intp)
        labels = np.array([marks[key].label or "" for key in found])
        normal, anomalous = self.normal.copy(), self.anomalous.copy()
        normal[at], anomalous[at] = labels == "normal", labels == "anomalous"
        no_anomaly = np.zeros(len(self), dtype=bool)
        no_anomaly[at] = labels != "anomalous"
        details = self.details
        for name in _OF_ANOMALIES:
            if name in details.column_names:
                column = pc.if_else(pa.array(no_anomaly), pa.scalar(None, pa.string()), details.column(name))
                details = details.set_column(details.column_names.index(name), details.schema.field(name), column)
        return replace(self, normal=normal, anomalous=anomalous, details=details)


def scored_images(category: str, table: pa.Table) -> ScoredImages:
    """Build `ScoredImages` from the score rows of one category.

    Args:
        category: The category.
        table: Its rows with at least the columns in `COLUMNS`.
    """
    scores = table.column("score").to_numpy().astype(np.float64)
    return ScoredImages(
        category=category,
        # One bundle scores all rows of a category, so they share one threshold.
        threshold=float(table.column("threshold")[0].as_py()) if table.num_rows else float("nan"),
        scores=np.where(_equals(table, "status", "ok"), scores, np.nan),
        normal=_equals(table, "label", "normal"),
        anomalous=_equals(table, "label", "anomalous"),
        details=table.select([name for name in table.column_names if name not in _AS_ARRAYS]).combine_chunks(),
    )


def by_category(table: pa.Table) -> list[ScoredImages]:
    """Build `ScoredImages` for every category of some score rows, in alphabetical order.

    Args:
        table: Rows with at least the columns in `COLUMNS`, and `category`.
    """
    names = sorted(pc.unique(table.column("category")).to_pylist())
    return [scored_images(name, table.filter(pc.equal(table.column("category"), name))) for name in names]


def _equals(table: pa.Table, column: str, value: str) -> Mask:
    found = pc.fill_null(pc.equal(table.column(column), value), False)
    return np.asarray(found.to_numpy(), dtype=bool)
