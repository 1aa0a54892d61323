"""How numbers, names and outcomes are put into words, alike in HTML and Markdown."""

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
    "sum": "each adds weight \N{MULTIPLICATION SIGN} calibrated score to the score of an image",
    "excess": "each adds weight \N{MULTIPLICATION SIGN} what its calibrated score says beyond normal to the score of "
    "an image: hardly anything below 0, the score up to 4, of more the logarithm",
    "maps": "the score of an image is the maximum of the sum of weight \N{MULTIPLICATION SIGN} map",
}
"""What the experts do, by rule of fusion."""
MISSING: Final = "-"
"""Stands where a table has no value."""


def visible(text: str, limit: int = 200) -> str:
    """A text from outside as one line: what does not print becomes an escape, the middle of a long one is left out.

    Args:
        text: A file name, reason, category or the like.
        limit: Most characters, at least 3.
    """
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
    if len(shown) <= limit:
        return shown
    # The end tells more: it is the file's name.
    tail = limit * 2 // 3
    return f"{shown[: limit - tail - 1]}…{shown[-tail:]}"


def share(part: int, whole: int) -> str:
    """`3 of 40 (7.5 %)`."""
    return f"{part:,} of {whole:,} ({percent(part / whole)} %)" if whole else MISSING


def percent(value: float | None) -> str:
    """A share between 0 and 1 as per cent, with one digit."""
    return MISSING if value is None else f"{100 * value:.1f}"


def metric_value(metric: Metric) -> str:
    """The value of a metric in its unit: a share in per cent, a score as it is."""
    return _in_unit(metric, metric.value)


def interval(metric: Metric) -> str:
    """Both ends of the interval in the metric's unit, joined by a dash; empty if there is none."""
    if metric.low is None or metric.high is None:
        return ""
    return f"{_in_unit(metric, metric.low)}\N{EN DASH}{_in_unit(metric, metric.high)}"


def _in_unit(metric: Metric, value: float | None) -> str:
    entry = catalogue.find(metric.metric, metric.limit)
    return score(value) if entry is not None and entry.unit == "score" else percent(value)


def score(value: float | None) -> str:
    """A score with two digits, or with fewer where it is large."""
    if value is None:
        return MISSING
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.3g}"


def seconds(value: float) -> str:
    """`4.2 s` or `1 h 02 min`."""
    if value < 120:
        return f"{value:.1f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def category_name(category: str) -> str:
    """The category, or what `*` stands for."""
    return "mean of categories" if category == MEAN_OF_CATEGORIES else category


class Grouped(Protocol):
    """A metric, a difference, or a row of them."""

    @property
    def group(self) -> str:
        """`all`, `anomaly_type` or `defect_kind`."""

    @property
    def name(self) -> str:
        """Which of them."""


def group_name(row: Grouped) -> str:
    """Which anomalous images a row sets against the normal ones."""
    if row.group == ALL:
        return "all anomalies"
    if row.group == ANOMALY_TYPE:
        return "mean of anomaly types" if row.name == MEAN_OF_TYPES else f"{row.name} anomalies"
    return row.name
