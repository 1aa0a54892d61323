"""Charts as inline SVG: text stays text, colours are CSS variables, and equal data give equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
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

# Unused colours serve as placeholders; the page replaces them with its own, for light, dark and print.
_INK: Final = "#010101"
_FAINT: Final = "#010102"
_THRESHOLD: Final = "#010103"
_GROUPS: Final = {
    # Colour, line style and title; line styles differ too, for colour-blind readers.
    "normal": ("#010104", "-", "normal"),
    "anomalous": ("#010105", "-", "anomalous"),
    "structural": ("#010105", "-.", "structural anomalies"),
    "logical": ("#010106", "--", "logical anomalies"),
    "unlabelled": ("#010107", "-", "unlabelled"),
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
    """Draws the score histogram of each group, with the threshold.

    Args:
        histogram: The counts.
        threshold: Threshold of the category.
        identity: Unique in the page; seeds the ids inside the SVG.
        label: Text alternative of the chart.
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
    """Draws recall over false-positive rate, with a point at the run's threshold."""
    with _page_style(identity):
        figure, axes = _figure("false-positive rate", "recall")
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle=":")
        _plot_curve(axes, curves.roc)
        point = curves.operating_point
        _plot_threshold(axes, point.false_positive_rate, point.recall)
        return _svg(figure, label)


def precision_recall_chart(curves: Curves, *, identity: str, label: str) -> Markup:
    """Draws precision over recall, with a point at the run's threshold if any image is called anomalous."""
    with _page_style(identity):
        figure, axes = _figure("recall", "precision")
        _plot_curve(axes, curves.precision_recall)
        point = curves.operating_point
        if point.precision is not None:
            _plot_threshold(axes, point.recall, point.precision)
        return _svg(figure, label)


def nights_chart(
    names: Sequence[str], shares: Sequence[float | None], alarmed: Sequence[bool], *, identity: str, label: str
) -> Markup:
    """Draws a share of images by night, with a point on each night and a cross on each night with an alarm.

    Args:
        names: Names of the N nights, oldest first.
        shares: Share of each night, 0 to 1; None without images.
        alarmed: Whether each night has an alarm.
        identity: Unique in the page; seeds the ids inside the SVG.
        label: Text alternative of the chart.
    """
    with _page_style(identity):
        figure, axes = _figure("", "per cent")
        values = [float("nan") if share is None else 100 * share for share in shares]
        positions = range(len(names))
        axes.plot(positions, values, color=_GROUPS["normal"][0], linewidth=1.3, marker="o", markersize=3)
        crosses = [
            (at, value) for at, (value, is_alarmed) in enumerate(zip(values, alarmed, strict=True)) if is_alarmed
        ]
        if crosses:
            at, heights = zip(*crosses, strict=True)
            axes.plot(at, heights, color=_THRESHOLD, linestyle="", marker="x", markersize=8, label="alarm")
            axes.legend(frameon=False, labelcolor=_INK, fontsize=_FONT_SIZE - 1, loc="upper left")
        shown = list(positions)[:: max(1, (len(names) + 5) // 6)]
        axes.set_xticks(shown, [names[at] for at in shown], fontsize=_FONT_SIZE - 3)
        axes.set_ylim(bottom=0)
        return _svg(figure, label)


def _page_style(identity: str) -> Any:
    # Matplotlib reads these only from its global parameters; the context restores them. Starting from the defaults
    # keeps a user's matplotlibrc out of the report.
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
    # The content security policy forbids style attributes; SVG attributes do the same.
    text = re.sub(r' style="([^"]*)"', _as_attributes, text)
    # Ids of groups repeat in each chart, and nothing refers to them; elements that are referenced have unique ids.
    text = re.sub(r'<g id="[^"]*"', "<g", text).replace("xlink:href", "href")
    for drawn, shown in _PAGE_COLOURS.items():
        text = text.replace(drawn, shown)
    width, height = (_POINTS_AN_INCH * side for side in _SIZE)
    opening = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {:g} {:g}">').format(
        label, width, height
    )
    # The rest comes from numbers and from the words in this file, so it is safe.
    return opening + Markup(text[text.index(">") + 1 :])  # noqa: S704


def _as_attributes(match: re.Match[str]) -> str:
    declarations = (part.split(":", 1) for part in match[1].split(";") if part.strip())
    return "".join(
        f' {name.strip()}="{value.strip()}"' for name, value in declarations if name.strip() != "font-family"
    )
