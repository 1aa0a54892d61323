"""The labelled images of a run, category by category: what an evaluation and a comparison are about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.metrics.metric import ALL, ANOMALY_TYPE
from uniad_ray.pipelines.marks import Mark
from uniad_ray.pipelines.reviewed_labels import NO_MARKS, with_reviewed_labels
from uniad_ray.pipelines.run_reader import RunReader

COLUMNS = (
    "row_key",
    "category",
    "split",
    "label",
    "defect_kind",
    "anomaly_type",
    "status",
    "experts",
    "score",
    "threshold",
)
UNKNOWN_KIND = "unknown"


@dataclass(frozen=True)
class Group:
    """Anomalous images that are set against the normal ones together.

    Attributes:
        group: `all`, `anomaly_type` or `defect_kind`.
        name: `all`, or the anomaly type or defect kind.
        members: bool, shape (N,), over the cohort: its normal images and these anomalous ones.
    """

    group: str
    name: str
    members: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cohort:
    """The N labelled and scored images of one category.

    Attributes:
        category: Category.
        split: Split they are of: `test` where the category has one, else `archive`; None where it has neither.
        row_keys: N keys, in the archive's order.
        anomalous: bool, shape (N,), by mark or label.
        anomaly_types: N of `logical`, `structural` or None.
        defect_kinds: N names, or None for normal images.
        scores: float64, shape (N,), fused.
        thresholds: float64, shape (N,).
        experts: Calibrated scores by expert, each float64 of shape (N,).
        unlabelled: Images of the split left out since they have no label.
        errors: Labelled images of the split left out since they could not be scored.
        marked: Images whose label is that of a reviewer's mark, by kind of mark.
        unused_marks: Marks on images of other splits.
    """

    category: str
    split: str | None
    row_keys: tuple[str, ...]
    anomalous: npt.NDArray[np.bool_]
    anomaly_types: tuple[str | None, ...]
    defect_kinds: tuple[str | None, ...]
    scores: npt.NDArray[np.float64]
    thresholds: npt.NDArray[np.float64]
    experts: dict[str, npt.NDArray[np.float64]]
    unlabelled: int
    errors: int
    marked: Counter[str] = field(default_factory=Counter)
    unused_marks: int = 0

    @property
    def decisions(self) -> npt.NDArray[np.bool_]:
        """Shape (N,), whether each image was called anomalous."""
        return np.asarray(self.scores > self.thresholds)

    def subset(self, positions: Sequence[int]) -> Cohort:
        """Some of the images, in the order given."""
        return replace(
            self,
            row_keys=tuple(self.row_keys[index] for index in positions),
            anomalous=self.anomalous[positions],
            anomaly_types=tuple(self.anomaly_types[index] for index in positions),
            defect_kinds=tuple(self.defect_kinds[index] for index in positions),
            scores=self.scores[positions],
            thresholds=self.thresholds[positions],
            experts={name: values[positions] for name, values in self.experts.items()},
        )

    def groups(self) -> Iterator[Group]:
        """All anomalous images, then those of each anomaly type, then those of each defect kind."""
        yield Group(ALL, ALL, np.ones(len(self.row_keys), dtype=bool))
        for group, names in ((ANOMALY_TYPE, self.anomaly_types), ("defect_kind", self.defect_kinds)):
            column = np.array([name or "" for name in names], dtype=object)
            for name in sorted({name for name in names if name}):
                yield Group(group, name, ~self.anomalous | (column == name))


def cohorts(reader: RunReader, marks: Mapping[str, Mark] = NO_MARKS) -> list[Cohort]:
    """Reads the labelled images of a run, by category in alphabetical order.

    The test split counts where a category has one, since the experts have seen the training images. A mark gives an
    image its label, whether it had none or another. An image that is anomalous by its mark alone has no masks and the
    defect kind `unknown`; one that is normal by its mark has no anomalous pixel, whatever masks it came with.

    Args:
        reader: The run.
        marks: Reviewers' marks by row key.
    """
    table = with_reviewed_labels(reader.scores(COLUMNS), marks)
    categories = sorted(pc.unique(table.column("category")).to_pylist())
    return [_cohort(name, table.filter(pc.equal(table.column("category"), name)), marks) for name in categories]


def _cohort(category: str, table: pa.Table, marks: Mapping[str, Mark]) -> Cohort:
    splits = set(pc.unique(table.column("split")).to_pylist())
    split = next((name for name in ("test", "archive") if name in splits), None)
    of_split = table.filter(pc.equal(table.column("split"), split or ""))
    labelled = of_split.filter(pc.is_valid(of_split.column("label")))
    scored = labelled.filter(pc.equal(labelled.column("status"), "ok"))
    columns = {name: scored.column(name).to_pylist() for name in COLUMNS}
    anomalous = np.array([label == "anomalous" for label in columns["label"]], dtype=bool)
    experts: dict[str, list[float]] = {}
    for entries in columns["experts"]:
        for entry in entries:
            experts.setdefault(entry["expert"], []).append(entry["calibrated"])
    marked: Counter[str] = Counter(marks[key].mark for key in columns["row_key"] if key in marks)
    of_category = sum(mark.category == category for mark in marks.values())
    return Cohort(
        category=category,
        split=split,
        row_keys=tuple(columns["row_key"]),
        anomalous=anomalous,
        anomaly_types=tuple(columns["anomaly_type"]),
        defect_kinds=tuple(
            (kind or UNKNOWN_KIND) if bad else None for kind, bad in zip(columns["defect_kind"], anomalous, strict=True)
        ),
        scores=np.array(columns["score"], dtype=np.float64),
        thresholds=np.array(columns["threshold"], dtype=np.float64),
        experts={name: np.array(values, dtype=np.float64) for name, values in experts.items()},
        unlabelled=of_split.num_rows - labelled.num_rows,
        errors=labelled.num_rows - scored.num_rows,
        marked=marked,
        unused_marks=of_category - marked.total(),
    )
