"""`uniad-ray report`: writes a report of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from uniad_ray import verbs
from uniad_ray.cli.options import (
    address_option,
    confidence_option,
    marks_option,
    pixel_workers_option,
    print_report,
    reporting,
    resamples_option,
)
from uniad_ray.cli.tables import mib

if TYPE_CHECKING:
    from uniad_ray.reporting.build import ReportResult


@click.command()
@click.argument("run")
@click.option("--format", type=click.Choice(["html", "json", "parquet", "markdown"]), default="html", show_default=True)
@click.option("--out", metavar="PATH", help="File to write.  [default: below RUN/report]")
@marks_option
@resamples_option
@confidence_option
@click.option("--captions", metavar="SIDECAR", help="Show the captions of this sidecar beside the images.")
@pixel_workers_option
@address_option
@reporting
def report(as_json: bool, **options: Any) -> None:
    """Write a report of RUN: metrics, curves, images to review, errors and lineage.

    The HTML report is one self-contained file. Without labels, the report omits the parts that need them.
    """
    print_report(verbs.report(**options), as_json, as_text)


def as_text(result: ReportResult) -> str:
    """Path and size of the report."""
    return f"{result.path}: report of run {result.run_id}, {mib(result.bytes)}"
