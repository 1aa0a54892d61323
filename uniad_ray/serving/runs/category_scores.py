"""Filter, sort and re-threshold the scored images of a category in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from uniad_ray.runs.reviews import Mark
from uniad_ray.runs.scored_images import ScoredImages

Decision = Literal["normal", "anomalous"]
Status = Literal["ok", "error"]
Order = Literal["highest", "lowest", "threshold", "archive"]
MarkFilter = Literal["false_alarm", "miss", "confirmed", "any", "none"]


@dataclass(frozen=True)
class RowFilter:
    """Filter and order of rows; None applies no filter.

    Attributes:
        decision: Decision at `threshold`.
        mark: Kind of mark; `any` selects marked rows, `none` unmarked ones.
        status: `ok` or `error`.
        min_score: Minimum score, inclusive; excludes rows without a score.
        max_score: Maximum score, inclusive; excludes rows without a score.
        threshold: Threshold of the decisions; None takes the threshold of the run.
        order: `highest` or `lowest` score first, nearest to the `threshold` first, or `archive` order. Ties are in
            archive order. Rows without a score come last, except in `archive` order.
    """

    decision: Decision | None = None
    mark: MarkFilter | None = None
    status: Status | None = None
    min_score: float | None = None
    max_score: float | None = None
    threshold: float | None = None
    order: Order = "highest"


@dataclass(frozen=True)
class ErrorCounts:
    """Errors at a threshold among the labelled images."""

    false_alarms: int
    misses: int


@dataclass(frozen=True)
class ThresholdChange:
    """Effect of a new threshold on a category.

    Attributes:
        anomalous_before: Anomalous decisions at the threshold of the run.
        anomalous_after: Anomalous decisions at the new threshold.
        normal_labels: Scored images that are normal by label or mark.
        anomalous_labels: Scored images that are anomalous by label or mark.
        before: Errors at the threshold of the run; None if no image is labelled.
        after: Errors at the new threshold; None if no image is labelled.
    """

    anomalous_before: int
    anomalous_after: int
    normal_labels: int
    anomalous_labels: int
    before: ErrorCounts | None
    after: ErrorCounts | None


class CategoryScores:
    """The scores of a category, sorted once to make every query cheap.

    Attributes:
        images: All images in archive order, including those without a score; at least one.
    """

    def __init__(self, images: ScoredImages) -> None:
        """Sort the scores."""
        self.images = images
        scores = images.scores
        self._normal = images.normal & images.scored
        self._anomalous = images.anomalous & images.scored
        # NaN sorts to the end: rows without a score come last in both orders.
        self._ascending = np.argsort(scores, kind="stable").astype(np.int32)
        self._descending = np.argsort(-scores, kind="stable").astype(np.int32)
        self._sorted = scores[self._ascending][: int(images.scored.sum())]
        self._sorted_normal = np.sort(scores[self._normal])
        self._sorted_anomalous = np.sort(scores[self._anomalous])
        self._marked_positions: dict[str, int] = {}

    @property
    def range(self) -> tuple[float, float] | None:
        """Lowest and highest score; None if no image has a score."""
        return (float(self._sorted[0]), float(self._sorted[-1])) if self._sorted.size else None

    def by_position(self, marks: Mapping[str, Mark]) -> dict[int, Mark]:
        """Return the marks of this category by row position; the position of a key is cached."""
        known = self._marked_positions
        if new := [key for key in marks if key not in known]:
            # A new dictionary, because another thread may be reading the old one.
            known = known | dict.fromkeys(new, -1) | self.images.positions(new)
            self._marked_positions = known
        return {known[key]: mark for key, mark in marks.items() if known[key] >= 0}

    def select(self, asked: RowFilter, marks: Mapping[int, Mark]) -> npt.NDArray[np.int64]:
        """Return the positions of the rows that match a filter, in its order.

        Args:
            asked: The filter.
            marks: Marks by position.
        """
        images = self.images
        threshold = images.threshold if asked.threshold is None else asked.threshold
        taken = np.ones(len(images), dtype=bool)
        if asked.status is not None:
            taken &= images.scored == (asked.status == "ok")
        if asked.decision is not None:
            taken &= images.scored & ((images.scores > threshold) == (asked.decision == "anomalous"))
        # Comparisons with NaN are false: rows without a score do not match.
        if asked.min_score is not None:
            taken &= images.scores >= asked.min_score
        if asked.max_score is not None:
            taken &= images.scores <= asked.max_score
        if asked.mark is not None:
            marked = np.zeros(len(images), dtype=bool)
            marked[[at for at, mark in marks.items() if asked.mark in ("any", "none", mark.mark)]] = True
            taken &= marked != (asked.mark == "none")
        return self._ordered(taken, asked.order, threshold)

    def what_if(self, threshold: float, marks: Mapping[int, Mark]) -> ThresholdChange:
        """Preview a threshold; the time depends on the number of marks only.

        Args:
            threshold: The new threshold.
            marks: Marks by position; they override the ingested labels.
        """
        images = self.images
        positions = np.array([at for at in marks if images.scored[at]], dtype=np.int64)
        bad = np.array([mark.label == "anomalous" for at, mark in marks.items() if images.scored[at]], dtype=bool)
        reviewed = _Reviewed(images.scores[positions], bad, self._normal[positions], self._anomalous[positions])
        normal = self._sorted_normal.size + int((~bad).sum()) - int(reviewed.was_normal.sum())
        anomalous = self._sorted_anomalous.size + int(bad.sum()) - int(reviewed.was_anomalous.sum())
        has_labels = normal + anomalous > 0
        return ThresholdChange(
            anomalous_before=_above(self._sorted, images.threshold),
            anomalous_after=_above(self._sorted, threshold),
            normal_labels=normal,
            anomalous_labels=anomalous,
            before=self._errors(images.threshold, reviewed) if has_labels else None,
            after=self._errors(threshold, reviewed) if has_labels else None,
        )

    def _errors(self, threshold: float, reviewed: _Reviewed) -> ErrorCounts:
        called = reviewed.scores > threshold
        false_alarms = _above(self._sorted_normal, threshold)
        false_alarms += int((called & ~reviewed.anomalous).sum()) - int((called & reviewed.was_normal).sum())
        misses = self._sorted_anomalous.size - _above(self._sorted_anomalous, threshold)
        misses += int((~called & reviewed.anomalous).sum()) - int((~called & reviewed.was_anomalous).sum())
        return ErrorCounts(false_alarms, misses)

    def _ordered(self, taken: npt.NDArray[np.bool_], order: Order, threshold: float) -> npt.NDArray[np.int64]:
        match order:
            case "highest":
                return np.asarray(self._descending[taken[self._descending]], dtype=np.int64)
            case "lowest":
                return np.asarray(self._ascending[taken[self._ascending]], dtype=np.int64)
            case "threshold":
                # In ascending order of scores, distances fall and then rise: a stable sort merges them in linear time.
                held = self._ascending[taken[self._ascending]]
                nearest = np.argsort(np.abs(self.images.scores[held] - threshold), kind="stable")
                return np.asarray(held[nearest], dtype=np.int64)
            case "archive":
                return np.flatnonzero(taken)


@dataclass(frozen=True)
class _Reviewed:
    """The M scored images with a mark: score, label by mark, and ingested label; each of shape (M,)."""

    scores: npt.NDArray[np.float64]
    anomalous: npt.NDArray[np.bool_]
    was_normal: npt.NDArray[np.bool_]
    was_anomalous: npt.NDArray[np.bool_]


def _above(ascending: npt.NDArray[np.float64], threshold: float) -> int:
    return int(ascending.size - np.searchsorted(ascending, threshold, side="right"))
