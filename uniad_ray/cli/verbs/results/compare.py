"""`uniad-ray compare`: compares runs on one archive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from uniad_ray import verbs
from uniad_ray.cli.options import confidence_option, marks_option, print_report, reporting, resamples_option
from uniad_ray.cli.tables import percent, table

if TYPE_CHECKING:
    from uniad_ray.metrics.difference import Difference
    from uniad_ray.reporting.comparison.model import ComparisonReport


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--out", metavar="PATH", help="HTML file to write.")
@marks_option
@resamples_option
@confidence_option
@reporting
def compare(as_json: bool, **options: Any) -> None:
    """Compare runs on one archive with the first: metrics with paired intervals, and changed decisions."""
    print_report(verbs.compare(**options), as_json, as_text)


def as_text(report: ComparisonReport) -> str:
    """The main differences between runs, in percentage points, and the number of changed decisions."""
    names = {entry.run: f"run {index + 1}" for index, entry in enumerate(report.runs)}
    lines = [f"{names[entry.run]}: {entry.run} (run {entry.run_id})" for entry in report.runs]
    rows = _rows(report, names)
    if rows:
        header = ("run", "category", "anomalies", "metric", "run 1", "this run", "difference")
        lines.append(table(header, rows))
    lines += [
        f"{names[entry.run]}: {entry.changed} of {entry.images} decisions differ from run 1: "
        f"{entry.to_anomalous} became anomalous, {entry.to_normal} became normal"
        + (f"; by their labels, {entry.mended} became right, {entry.broken} became wrong" if entry.labelled else "")
        for entry in report.changes
    ]
    lines += [f"note: {note}" for note in report.notes]
    if report.path:
        lines.append(f"{report.path}: comparison with pictures of the changed images")
    return "\n".join(lines)


def _rows(report: ComparisonReport, names: Mapping[str, str]) -> list[tuple[str, ...]]:
    from uniad_ray.metrics.catalogue import columns
    from uniad_ray.reporting.wording import category_name, group_name

    shown = {(column.key, column.limit): column for column in columns("terminal comparison")}
    return [
        (
            names[entry.run],
            category_name(entry.category),
            group_name(entry),
            column.short_title,
            percent(entry.baseline),
            percent(entry.value),
            _difference(entry),
        )
        for entry in report.differences
        if entry.group != "defect_kind" and (column := shown.get((entry.metric, entry.limit))) is not None
    ]


def _difference(entry: Difference) -> str:
    if entry.difference is None:
        return "-"
    interval = (
        "" if entry.low is None or entry.high is None else f" ({100 * entry.low:+.1f} to {100 * entry.high:+.1f})"
    )
    return f"{100 * entry.difference:+.1f}{interval}"
