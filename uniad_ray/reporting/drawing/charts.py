"""Charts as inline SVG: text stays text, colours are CSS variables, and the same data give the same bytes."""

from __future__ import annotations

import io
import re
from typing import Any, Final

from markupsafe import Markup
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from uniad_ray.reporting.model import Curves, Histogram

_SIZE: Final = (5.0, 2.9)
_POINTS_AN_INCH: Final = 72
_FONT_SIZE: Final = 10
_LOG_COUNTS_ABOVE: Final = 60

# Colours that nobody draws stand for those of the page, which differ between light, dark and paper.
_INK: Final = "#010101"
_FAINT: Final = "#010102"
_THRESHOLD: Final = "#010103"
_GROUPS: Final = {
    # Colour, line and name for people; lines differ as well, for those who do not see the colours.
    "normal": ("#010104", "-", "normal"),
    "anomalous": ("#010105", "-", "anomalous"),
    "structural": ("#010105", "-.", "structural anomalies"),
    "logical": ("#010106", "--", "logical anomalies"),
    "unlabelled": ("#010107", "-", "without label"),
}
_PAGE_COLOURS: Final = {
    _INK: "currentColor",
    _FAINT: "var(--faint)",
    _THRESHOLD: "var(--threshold)",
    "#010104": "var(--normal)",
    "#010105": "var(--anomalous)",
    "#010106": "var(--logical)",
    "#010107": "var(--unlabelled)",
}


def histogram_chart(histogram: Histogram, threshold: float, *, identity: str, label: str) -> Markup:
    """Scores of each group, with the threshold.

    Args:
        histogram: Counts.
        threshold: The category's threshold.
        identity: Unique in the page; the ids inside the SVG follow from it.
        label: What the chart says, for those who do not see it.
    """
    with _page_style(identity):
        figure, axes = _figure("score", "images")
        for name, counts in histogram.counts.items():
            colour, line, title = _GROUPS[name]
            axes.stairs(counts, histogram.edges, fill=True, color=colour, alpha=0.25, linewidth=0)
            axes.stairs(counts, histogram.edges, color=colour, linestyle=line, linewidth=1.3, label=title)
        highest = max(max(counts) for counts in histogram.counts.values())
        if highest > _LOG_COUNTS_ABOVE:
            axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_major_formatter(ScalarFormatter())
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylim(0, highest * (3 if highest > _LOG_COUNTS_ABOVE else 1.15))
        axes.axvline(threshold, color=_THRESHOLD, linewidth=1.5, linestyle=(0, (5, 2)), label="threshold")
        axes.legend(frameon=False, labelcolor=_INK, fontsize=_FONT_SIZE - 1, loc="upper right")
        return _svg(figure, label)


def roc_chart(curves: Curves, *, identity: str, label: str) -> Markup:
    """Recall over false-positive rate, with the run's threshold as a point."""
    with _page_style(identity):
        figure, axes = _figure("false-positive rate", "recall")
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle=":")
        _plot_curve(axes, curves.roc)
        point = curves.operating_point
        _plot_threshold(axes, point.false_positive_rate, point.recall)
        return _svg(figure, label)


def precision_recall_chart(curves: Curves, *, identity: str, label: str) -> Markup:
    """Precision over recall, with the run's threshold as a point where it calls any image anomalous."""
    with _page_style(identity):
        figure, axes = _figure("recall", "precision")
        _plot_curve(axes, curves.precision_recall)
        point = curves.operating_point
        if point.precision is not None:
            _plot_threshold(axes, point.recall, point.precision)
        return _svg(figure, label)


def _page_style(identity: str) -> Any:
    # Matplotlib takes these from its global parameters alone; the context gives them back, and its own defaults keep
    # a user's matplotlibrc out of the report.
    return style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": identity, "font.size": _FONT_SIZE}])


def _figure(x_title: str, y_title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(color=_FAINT, labelcolor=_INK)
    axes.set_xlabel(x_title, color=_INK)
    axes.set_ylabel(y_title, color=_INK)
    return figure, axes


def _plot_curve(axes: Any, points: tuple[tuple[float, float], ...]) -> None:
    axes.plot(*zip(*points, strict=True), color=_GROUPS["normal"][0], linewidth=1.8, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)


def _plot_threshold(axes: Any, x: float, y: float) -> None:
    axes.plot([x], [y], "o", color=_THRESHOLD, markersize=7, clip_on=False, label="at the threshold", zorder=3)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=_FONT_SIZE - 1, loc="lower right")


def _svg(figure: Figure, label: str) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    # The page allows no style attributes; the same as SVG attributes can be had.
    text = re.sub(r' style="([^"]*)"', _as_attributes, text)
    # Groups are numbered anew in each chart; what is referred to has ids of its own.
    text = re.sub(r'<g id="[^"]*"', "<g", text).replace("xlink:href", "href")
    for drawn, shown in _PAGE_COLOURS.items():
        text = text.replace(drawn, shown)
    width, height = (_POINTS_AN_INCH * side for side in _SIZE)
    opening = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {:g} {:g}">').format(
        label, width, height
    )
    # What is left comes from numbers and from the words in this file.
    return opening + Markup(text[text.index(">") + 1 :])  # noqa: S704


def _as_attributes(match: re.Match[str]) -> str:
    declarations = (part.split(":", 1) for part in match[1].split(";") if part.strip())
    return "".join(
        f' {name.strip()}="{value.strip()}"' for name, value in declarations if name.strip() != "font-family"
    )
