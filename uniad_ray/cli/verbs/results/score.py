"""`uniad-ray score`: scores an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from uniad_ray import verbs
from uniad_ray.cli.options import (
    address_option,
    bundles_option,
    category_option,
    comma_separated,
    device_option,
    print_report,
    reporting,
    sidecar_option,
)
from uniad_ray.cli.tables import table

if TYPE_CHECKING:
    from uniad_ray.pipelines.score.job import ScoreReport


@click.command()
@click.argument("archive")
@bundles_option
@click.option("--out", required=True, metavar="RUN", help="Root of the run; the same RUN again resumes after a crash.")
@category_option
@click.option("--split", "splits", multiple=True, help="Only this split; may be repeated.")
@click.option("--shard", "shards", multiple=True, metavar="PATH", help="Only this shard; may be repeated.")
@click.option(
    "--maps", type=click.Choice(["all", "top", "none"]), default="all", show_default=True, help="Maps to keep."
)
@click.option(
    "--top-maps", type=click.IntRange(1), default=100, show_default=True, help="Maps per category with --maps top."
)
@click.option(
    "--false-positive-rate", type=float, help="False-positive rate for the threshold.  [default: the bundle's]"
)
@click.option(
    "--experts",
    metavar="NAME,...",
    callback=comma_separated,
    help="Experts to use; the threshold follows from their held-out scores.  [default: all of the bundle]",
)
@sidecar_option
@click.option("--workers", type=click.IntRange(1), help="Actors that score.  [default: by the cluster]")
@click.option("--threads", type=click.IntRange(1), help="Threads of an actor.  [default: by the cluster]")
@device_option
@click.option(
    "--max-error-share",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Largest share of images with an error; above it, the exit code is 1. The results are kept. One image is "
    "always allowed, unless the share is 0.",
)
@address_option
@reporting
def score(as_json: bool, max_error_share: float, **options: Any) -> int:
    """Score every image of ARCHIVE with the published bundles.

    After a crash, the same command resumes. An unreadable image gets a row with status error.
    """
    report = verbs.score(**options)
    print_report(report, as_json, as_text)
    # One unreadable file costs itself alone, however few images there are.
    if report.errors <= max(max_error_share * report.images, 1 if max_error_share else 0):
        return 0
    click.echo(
        f"error: {report.errors} of {report.images} images could not be scored, more than --max-error-share "
        f"{max_error_share:g}; the rows with status error say why",
        err=True,
    )
    return 1


def as_text(report: ScoreReport) -> str:
    """Counts of a run."""
    columns = ["images", "anomalous", *(["in_review"] if report.in_review else []), "errors"]
    rows = [(name, *(getattr(item, column) for column in columns)) for name, item in report.categories.items()]
    lines = [table(("category", *(column.replace("in_", "") for column in columns)), rows)]
    if report.skipped_chunks:
        lines.append(f"{report.skipped_chunks} chunks were already done")
    if report.parts:
        lines.append(
            f"{report.parts} parts by serial: {report.anomalous_parts} anomalous, {report.undecided_parts} undecided "
            "because of errors"
        )
    if report.store_retries:
        lines.append(f"{report.store_retries} requests to the store were repeated, because it failed")
    lines += report.notes
    lines.append(f"{report.run}: run {report.run_id}, {report.images} rows")
    return "\n".join(lines)
