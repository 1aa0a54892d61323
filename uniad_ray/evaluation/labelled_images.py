"""The labelled images of a run, by category: the input of evaluation and comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from uniad_ray.metrics.metric import ALL, ANOMALY_TYPE
from uniad_ray.metrics.wording import count
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.reviewed_labels import NO_MARKS
from uniad_ray.runs.reviews import Mark
from uniad_ray.runs.scored_images import COLUMNS, ScoredImages, by_category

_COLUMNS = (*COLUMNS, "category", "split", "defect_kind", "anomaly_type", "experts", "shard", "row_group")
UNKNOWN_KIND = "unknown"


@dataclass(frozen=True)
class Group:
    """A group of anomalous images to compare with all normal images.

    Attributes:
        group: `all`, `anomaly_type` or `defect_kind`.
        name: `all`, or the anomaly type or defect kind.
        members: bool, shape (N,), over the labelled images: true for normal images and the anomalous images of the
            group.
    """

    group: str
    name: str
    members: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LabelledImages(ScoredImages):
    """The labelled and scored images of one category, in the evaluated split.

    Attributes:
        split: The evaluated split: `test` if the category has one, else `archive`; None if it has neither.
        unlabelled_images: Number of images in the split without a label; excluded.
        error_images: Number of labelled images in the split that could not be scored; excluded.
        marked: Number of images labelled by a reviewer's mark, by kind of mark.
        unused_marks: Number of marks on images of other splits.
    """

    split: str | None
    unlabelled_images: int
    error_images: int
    marked: Counter[str] = field(default_factory=Counter)
    unused_marks: int = 0

    @cached_property
    def defect_kinds(self) -> tuple[str | None, ...]:
        """N names: `unknown` for anomalous images without a defect kind, None for normal images."""
        kinds = self.details.column("defect_kind").to_pylist()
        return tuple((kind or UNKNOWN_KIND) if bad else None for kind, bad in zip(kinds, self.anomalous, strict=True))

    def groups(self) -> Iterator[Group]:
        """Yields all anomalous images, then each anomaly type, then each defect kind."""
        yield Group(ALL, ALL, np.ones(len(self), dtype=bool))
        for group, names in ((ANOMALY_TYPE, self.anomaly_types), ("defect_kind", self.defect_kinds)):
            column = np.array([name or "" for name in names], dtype=object)
            for name in sorted({name for name in names if name}):
                yield Group(group, name, ~self.anomalous | (column == name))


def labelled_images(reader: RunReader, marks: Mapping[str, Mark] = NO_MARKS) -> list[LabelledImages]:
    """Reads the labelled images of a run, by category in alphabetical order.

    If a category has a test split, only that is evaluated, because the experts have seen the training images. A mark
    overrides the label of its image. An image that is anomalous only by its mark has no masks and the defect kind
    `unknown`. An image that is normal by its mark has no anomalous pixels, whatever its masks say.

    Args:
        reader: The run.
        marks: Reviewers' marks, by row key.
    """
    return [_labelled(images.reviewed(marks), marks) for images in by_category(reader.scores(_COLUMNS))]


def mark_notes(found: Iterable[LabelledImages]) -> Iterator[str]:
    """Notes on the reviewers' marks behind the metrics."""
    used, unused = Counter[str](), 0
    for labelled in found:
        used += labelled.marked
        unused += labelled.unused_marks
    if total := used.total():
        misses = used["miss"]
        parts = [
            count(used["false_alarm"], "false alarm") if used["false_alarm"] else "",
            f"{misses:,} miss" if misses == 1 else f"{misses:,} misses" if misses else "",
            count(used["confirmed"], "confirmed decision") if used["confirmed"] else "",
        ]
        are = "image is" if total == 1 else "images are"
        yield f"{total:,} {are} labelled by reviewers' marks ({', '.join(part for part in parts if part)})"
    if unused:
        yield f"{count(unused, 'mark')} on images outside the evaluated splits, not used"


def _labelled(images: ScoredImages, marks: Mapping[str, Mark]) -> LabelledImages:
    split = next((name for name in ("test", "archive") if images.equals("split", name).any()), None)
    of_split = images.take(images.equals("split", split or ""))
    labelled = of_split.take(~of_split.unlabelled)
    scored = labelled.with_score()
    marked: Counter[str] = Counter(marks[key].mark for key in scored.positions(marks))
    of_category = sum(mark.category == images.category for mark in marks.values())
    return LabelledImages(
        category=scored.category,
        threshold=scored.threshold,
        scores=scored.scores,
        normal=scored.normal,
        anomalous=scored.anomalous,
        details=scored.details,
        split=split,
        unlabelled_images=len(of_split) - len(labelled),
        error_images=len(labelled) - len(scored),
        marked=marked,
        unused_marks=of_category - marked.total(),
    )
