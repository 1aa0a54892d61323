"""The tables of a report as Markdown, to paste into a ticket."""

from __future__ import annotations

import functools
import re
from typing import Final

from jinja2 import Environment

from uniad_ray.reporting.environment import make_environment
from uniad_ray.reporting.metric_table import group_table, summary_table
from uniad_ray.reporting.model import Report
from uniad_ray.reporting.wording import visible

MAX_ROWS: Final = 100
MAX_ERROR_ROWS: Final = 20
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>|~#&@])")


def render_markdown(report: Report) -> bytes:
    """Renders the tables of a report as UTF-8; equal reports give equal bytes."""
    groups = [(detail.category, group_table(report.metrics, detail.category)) for detail in report.details]
    page = _environment().get_template("report.md.j2")
    return page.render(
        report=report,
        summary=summary_table(report.metrics),
        groups=[(category, table) for category, table in groups if table.columns and len(table.rows) > 1],
        max_rows=MAX_ROWS,
        max_error_rows=MAX_ERROR_ROWS,
    ).encode()


@functools.cache
def _environment() -> Environment:
    environment = make_environment(autoescape=False)
    environment.filters["text"] = _text
    return environment


def _text(text: str, limit: int = 200) -> str:
    """Escapes external text for Markdown."""
    return _MARKUP.sub(r"\\\1", visible(text, limit))
