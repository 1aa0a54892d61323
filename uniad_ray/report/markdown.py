"""The tables of a report as Markdown, to paste into a ticket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from uniad_ray.report import wording
from uniad_ray.report.figures import FigureTable, group_table, summary_table
from uniad_ray.report.model import CategoryResult, ExpertChoice, Report
from uniad_ray.report.wording import count, score, share, visible

MAX_ROWS: Final = 100
MAX_ERROR_ROWS: Final = 20
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>|~#&@])")


def render_markdown(report: Report) -> bytes:
    """The tables of a report, UTF-8; the same report gives the same bytes."""
    run = report.run
    parts = [f"## Anomaly report, run {_text(run.run_id)}"]
    if run.random_weights:
        parts.append("**Random weights: scores and metrics say nothing of quality.**")
    parts.append(
        f"{count(run.images, 'image')}, {count(run.called_anomalous)} called anomalous, {count(run.errors)} could not "
        f"be scored. Archive {_text(run.archive)}, digest {_text(run.archive_digest[:12])}; uniad\\_ray "
        f"{_text(run.code_version)}."
    )
    parts += [f"- {_text(note, 500)}" for note in report.notes[:MAX_ROWS]]
    parts.append(_decisions(report))
    summary = summary_table(report.metrics)
    if summary.columns:
        parts += [f"Metrics in per cent, with {100 * report.confidence:g} % intervals:", _figures(summary)]
    for detail in report.details:
        groups = group_table(report.metrics, detail.category)
        if groups.columns and len(groups.rows) > 1:
            parts += [f"### {_text(detail.category)}", _figures(groups)]
    for entry in report.categories:
        if entry.lineage is not None and entry.lineage.choices:
            parts += [f"### Experts of {_text(entry.category)}", _choices(entry.lineage.choices)]
    if report.errors:
        parts += [f"### Errors ({count(run.errors)})", _errors(report)]
    if report.attempts:
        parts += ["### Times", _times(report)]
    parts += ["### Bundles", _bundles(report.categories)]
    return ("\n\n".join(parts) + "\n").encode()


def _decisions(report: Report) -> str:
    header = ["Category", "Images", "Errors", "Called anomalous", "Threshold"]
    if report.is_labelled:
        header += ["False alarms", "Misses"]
    rows = []
    for entry in report.categories:
        row = [
            _text(entry.category),
            count(entry.images),
            count(entry.errors),
            share(entry.called_anomalous, entry.images - entry.errors),
            score(entry.threshold),
        ]
        if report.is_labelled:
            row += [
                share(entry.false_alarms, entry.normal_images),
                share(entry.misses, entry.anomalous_images),
            ]
        rows.append(row)
    return _table(header, rows)


def _figures(table: FigureTable) -> str:
    header = ["Against normal", "Normal", "Anomalous", *(column.title for column in table.columns)]
    single = len({row.category for row in table.rows}) == 1
    rows = []
    for row in table.rows:
        name = wording.group_name(row) if single else wording.category_name(row.category)
        cells = [
            wording.MISSING
            if cell is None
            else f"{wording.metric_value(cell)} ({wording.interval(cell)})".replace(" ()", "")
            for cell in row.cells
        ]
        rows.append([_text(name), count(row.normal_images), count(row.anomalous_images), *cells])
    return _table(header, rows)


def _choices(choices: Sequence[ExpertChoice]) -> str:
    rows = [[_text(choice.expert), f"{choice.weight:g}", _text(choice.reason)] for choice in choices]
    return _table(["Expert", "Weight", "Reason"], rows)


def _errors(report: Report) -> str:
    rows = [
        [_text(error.category), _text(error.kind), _text(error.text), _text(error.source_uri)]
        for error in report.errors[:MAX_ERROR_ROWS]
    ]
    return _table(["Category", "Kind", "What is wrong", "Image"], rows, total=report.run.errors)


def _times(report: Report) -> str:
    rows = [
        [
            _text(attempt.started_at),
            count(attempt.images),
            *(wording.seconds(value) for value in (attempt.decode, attempt.score, attempt.write, attempt.wall)),
        ]
        for attempt in report.attempts
    ]
    return _table(["Started (UTC)", "Images", "Decode", "Score", "Write", "Passed"], rows)


def _bundles(categories: Sequence[CategoryResult]) -> str:
    rows = []
    for entry in categories:
        row = [_text(entry.category), _text(entry.bundle_version), entry.bundle_digest[:12]]
        lineage = entry.lineage
        if lineage is None:
            row += [_text(entry.lineage_problem or ""), "", ""]
        else:
            row += [
                _text(f"{lineage.profile}: {', '.join(lineage.expert_weights)}"),
                count(lineage.fit_images),
                f"{lineage.calibration.replace('_', ' ')}, {count(lineage.held_out_images)} held out",
            ]
        rows.append(row)
    return _table(["Category", "Bundle", "Digest", "Profile and experts", "Fitted on", "Calibration"], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, total: int | None = None) -> str:
    shown = rows[:MAX_ROWS]
    lines = [header, ["---"] * len(header), *shown]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    missing = (len(rows) if total is None else total) - len(shown)
    return text if missing <= 0 else f"{text}\n\n… and {count(missing)} more."


def _text(text: str, limit: int = 200) -> str:
    """A text from outside as Markdown that shows it as it is."""
    return _MARKUP.sub(r"\\\1", visible(text, limit))
