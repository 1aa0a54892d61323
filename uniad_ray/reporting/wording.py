"""Words and number formats shared by the HTML and Markdown reports."""

from __future__ import annotations

from typing import Final, Protocol

from uniad_ray.metrics import catalogue
from uniad_ray.metrics.metric import ALL, ANOMALY_TYPE, MEAN_OF_CATEGORIES, MEAN_OF_TYPES, Metric

SECTION_TITLES: Final = {
    "highest": "Highest scores",
    "borderline": "Borderline: nearest to the threshold",
    "false_alarms": "Wrong: false alarms",
    "misses": "Wrong: missed anomalies",
}
OUTCOMES: Final = {
    "found": "anomaly found",
    "missed": "anomaly missed",
    "false_alarm": "false alarm",
    "passed": "normal, passed",
}
FUSION_RULES: Final = {
    "sum": "the score of an image is the sum of weight \N{MULTIPLICATION SIGN} calibrated score",
    "excess": "the score of an image is the sum of weight \N{MULTIPLICATION SIGN} excess of the calibrated score over "
    "normal, which is almost nothing for usual scores, then linear, and logarithmic far above",
    "maps": "the score of an image is the maximum of the sum of weight \N{MULTIPLICATION SIGN} map",
}
"""How the experts form the score of an image, by fusion rule."""
MISSING: Final = "-"
"""Placeholder for a missing value in a table."""


def visible(text: str, limit: int = 200) -> str:
    """Makes external text safe to show: one line, with unprintable characters escaped and the middle cut if too long.

    Args:
        text: A file name, reason, category or the like.
        limit: Maximum number of characters, at least 3.
    """
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
    if len(shown) <= limit:
        return shown
    # The end is kept longer, because it holds the file name.
    tail = limit * 2 // 3
    return f"{shown[: limit - tail - 1]}…{shown[-tail:]}"


def share(part: int, whole: int) -> str:
    """Formats a count as `3 of 40 (7.5 %)`; `-` if `whole` is 0."""
    return f"{part:,} of {whole:,} ({percent(part / whole)} %)" if whole else MISSING


def percent(value: float | None) -> str:
    """Formats a fraction between 0 and 1 in per cent, with one decimal."""
    return MISSING if value is None else f"{100 * value:.1f}"


def metric_value(metric: Metric) -> str:
    """Formats the value of a metric: a fraction in per cent, a score on its own scale."""
    return _in_unit(metric, metric.value)


def interval(metric: Metric) -> str:
    """Formats the interval of a metric in the unit of the metric, as `low-high`; empty without an interval."""
    if metric.low is None or metric.high is None:
        return ""
    return f"{_in_unit(metric, metric.low)}\N{EN DASH}{_in_unit(metric, metric.high)}"


def _in_unit(metric: Metric, value: float | None) -> str:
    entry = catalogue.find(metric.metric, metric.limit)
    return score(value) if entry is not None and entry.unit == "score" else percent(value)


def score(value: float | None) -> str:
    """Formats a score with two decimals, or with three significant digits from 10,000."""
    if value is None:
        return MISSING
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.3g}"


def seconds(value: float) -> str:
    """Formats a duration in seconds, such as `4.2 s`, `10 min` or `1 h 02 min`."""
    if value < 120:
        return f"{value:.1f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def category_name(category: str) -> str:
    """The category; `*` becomes `mean of categories`."""
    return "mean of categories" if category == MEAN_OF_CATEGORIES else category


class Grouped(Protocol):
    """Anything of one group of anomalous images: a metric, a difference, or a row of a table."""

    @property
    def group(self) -> str:
        """`all`, `anomaly_type` or `defect_kind`."""

    @property
    def name(self) -> str:
        """`all`, or the anomaly type or defect kind."""


def group_name(row: Grouped) -> str:
    """The name of the anomalous images that a row compares with the normal images."""
    if row.group == ALL:
        return "all anomalies"
    if row.group == ANOMALY_TYPE:
        return "mean of anomaly types" if row.name == MEAN_OF_TYPES else f"{row.name} anomalies"
    return row.name
