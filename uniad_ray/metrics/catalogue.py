"""The catalogue of metrics: names, computation, and the tables that show them.

To add a metric, write its function in this package, add one entry to `CATALOGUE`, and test the function. The evaluation
computes every entry. The terminal, the HTML and Markdown reports and the comparison take columns and titles from here;
JSON and Parquet hold the values of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from uniad_ray.metrics.bootstrap import (
    Formula,
    resampled_auroc,
    resampled_average_precision,
    resampled_f1_max,
    resampled_false_positive_rate,
    resampled_precision,
    resampled_recall,
)
from uniad_ray.metrics.image import (
    Confusion,
    average_precision,
    confusion,
    f1_max,
    image_auroc,
    threshold_at_false_positive_rate,
)
from uniad_ray.metrics.pixel import AUPRO_CURVE, AUROC_CURVE, SPRO_CURVES, PixelCurve

Table = Literal["terminal", "terminal comparison", "report", "comparison"]
"""Terminal output of `evaluate` and `compare`, tables of HTML and Markdown reports, and the comparison page."""

EVERY_TABLE: frozenset[Table] = frozenset({"terminal", "terminal comparison", "report", "comparison"})
NO_TABLE: frozenset[Table] = frozenset()
_PAGES: frozenset[Table] = frozenset({"report", "comparison"})
_SINGLE_RUN: frozenset[Table] = frozenset({"terminal", "report", "comparison"})

OfScores: TypeAlias = Callable[[np.ndarray, np.ndarray], float | None]
"""Computes a metric from labels, bool (N,), and scores, float64 (N,); None if it is undefined."""
OfDecisions: TypeAlias = Callable[[Confusion], float | None]
"""Computes a metric from the decisions at the run's threshold; None if it is undefined."""

RATE = 0.01
"""False-positive rate of `threshold_at_fpr` and `recall_at_fpr`."""
MAIN_SPRO_LIMIT = 0.05


@dataclass(frozen=True)
class CatalogueEntry:
    """One metric; exactly one of the three ways to compute it is given.

    Attributes:
        key: Its name in stored data, such as `pixel_spro`.
        name: Its name on pages.
        short_name: Its name in a terminal, where columns are narrow; default is `name`.
        limit: False-positive rate at which, or up to which, it is computed; None if it has none.
        better: Whether a higher or a lower value is better; None if neither is.
        unit: `share` for a fraction between 0 and 1, shown in per cent; `score` for a value on the scale of scores,
            which is not averaged over groups.
        tables: Tables that show it.
        of_scores: Computes it from labels and scores.
        of_decisions: Computes it from decisions.
        of_pixels: Curve whose area it is.
        resampled: Computes it in each bootstrap resample, for its interval; None gives no interval. Pixel metrics do
            not need it.
        of_experts: Whether it is also computed for the scores of each expert alone; needs `of_scores`.

    Raises:
        ValueError: There is no way to compute it, or there are several.
    """

    key: str
    name: str
    short_name: str = ""
    limit: float | None = None
    better: Literal["higher", "lower"] | None = "higher"
    unit: Literal["share", "score"] = "share"
    tables: frozenset[Table] = EVERY_TABLE
    of_scores: OfScores | None = None
    of_decisions: OfDecisions | None = None
    of_pixels: PixelCurve | None = None
    resampled: Formula | None = None
    of_experts: bool = False

    def __post_init__(self) -> None:
        """Checks that there is one way to compute it."""
        ways = [way for way in (self.of_scores, self.of_decisions, self.of_pixels) if way is not None]
        if len(ways) != 1:
            raise ValueError(f"{self.key}: give one of of_scores, of_decisions and of_pixels")
        if self.of_experts and self.of_scores is None:
            raise ValueError(f"{self.key}: of_experts needs of_scores")

    @property
    def title(self) -> str:
        """Name on pages, with `@` before the limit."""
        return self.name + self._at_limit

    @property
    def short_title(self) -> str:
        """Name in a terminal, with `@` before the limit."""
        return (self.short_name or self.name) + self._at_limit

    @property
    def _at_limit(self) -> str:
        return "" if self.limit is None else f"@{self.limit:g}"


def _f1(labels: np.ndarray, scores: np.ndarray) -> float | None:
    best = f1_max(labels, scores)
    return best.value if best else None


def _threshold_at_f1_max(labels: np.ndarray, scores: np.ndarray) -> float | None:
    best = f1_max(labels, scores)
    return best.threshold if best else None


def _threshold_at_rate(labels: np.ndarray, scores: np.ndarray) -> float | None:
    return None if labels.all() else threshold_at_false_positive_rate(scores[~labels], RATE)


def _recall_at_rate(labels: np.ndarray, scores: np.ndarray) -> float | None:
    threshold = _threshold_at_rate(labels, scores)
    return None if threshold is None else confusion(labels, scores, threshold).recall


CATALOGUE: tuple[CatalogueEntry, ...] = (
    CatalogueEntry(
        "image_auroc",
        "Image AUROC",
        "image AUROC",
        of_scores=image_auroc,
        resampled=resampled_auroc,
        of_experts=True,
    ),
    CatalogueEntry(
        "image_average_precision",
        "Average precision",
        "AP",
        tables=_SINGLE_RUN,
        of_scores=average_precision,
        resampled=resampled_average_precision,
    ),
    CatalogueEntry(
        "image_f1_max",
        "F1\N{NON-BREAKING HYPHEN}max",
        "F1-max",
        tables=_SINGLE_RUN,
        of_scores=_f1,
        resampled=resampled_f1_max,
    ),
    CatalogueEntry(
        "recall",
        "Recall",
        "recall",
        tables=_PAGES | {"terminal comparison"},
        of_decisions=lambda counts: counts.recall,
        resampled=resampled_recall,
    ),
    CatalogueEntry(
        "false_positive_rate",
        "False alarms",
        "false alarms",
        better="lower",
        tables=frozenset({"terminal comparison", "comparison"}),
        of_decisions=lambda counts: counts.false_positive_rate,
        resampled=resampled_false_positive_rate,
    ),
    CatalogueEntry(
        "precision",
        "Precision",
        "precision",
        tables=NO_TABLE,
        of_decisions=lambda counts: counts.precision,
        resampled=resampled_precision,
    ),
    CatalogueEntry(
        "threshold_at_f1_max",
        "Threshold at the highest F1",
        better=None,
        unit="score",
        tables=NO_TABLE,
        of_scores=_threshold_at_f1_max,
    ),
    CatalogueEntry(
        "threshold_at_fpr",
        "Threshold at the false-positive rate",
        limit=RATE,
        better=None,
        unit="score",
        tables=NO_TABLE,
        of_scores=_threshold_at_rate,
    ),
    CatalogueEntry(
        "recall_at_fpr",
        "Recall at the false-positive rate",
        limit=RATE,
        tables=NO_TABLE,
        of_scores=_recall_at_rate,
    ),
    CatalogueEntry("pixel_auroc", "Pixel AUROC", "pixel AUROC", tables=_SINGLE_RUN, of_pixels=AUROC_CURVE),
    CatalogueEntry("pixel_aupro", "AUPRO", limit=AUPRO_CURVE.limit, of_pixels=AUPRO_CURVE),
    *(
        CatalogueEntry(
            "pixel_spro",
            "sPRO",
            limit=curve.limit,
            tables=EVERY_TABLE if curve.limit == MAIN_SPRO_LIMIT else frozenset({"report"}),
            of_pixels=curve,
        )
        for curve in SPRO_CURVES
    ),
)
"""All metrics, in the order of columns."""


def find(key: str, limit: float | None) -> CatalogueEntry | None:
    """The entry of a stored metric; None if the catalogue does not have it."""
    return next((entry for entry in CATALOGUE if (entry.key, entry.limit) == (key, limit)), None)


def columns(table: Table) -> tuple[CatalogueEntry, ...]:
    """The entries that a table shows, in order."""
    return tuple(entry for entry in CATALOGUE if table in entry.tables)
