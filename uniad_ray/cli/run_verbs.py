"""The verbs that score archives and say what came of it."""

from __future__ import annotations

from typing import Any

import click

from uniad_ray.cli.options import (
    address_option,
    bundles_option,
    category_option,
    confidence_option,
    device_option,
    marks_option,
    print_report,
    reporting,
    resamples_option,
    sidecar_option,
)


@click.command()
@click.argument("archive")
@bundles_option
@click.option(
    "--out", required=True, metavar="RUN", help="Where the run goes; the same RUN again goes on after a break."
)
@category_option
@click.option("--split", "splits", multiple=True, help="Only this split; may be repeated.")
@click.option(
    "--maps", type=click.Choice(["all", "top", "none"]), default="all", show_default=True, help="Maps to keep."
)
@click.option(
    "--top-maps", type=click.IntRange(1), default=100, show_default=True, help="Maps per category with --maps top."
)
@click.option("--false-positive-rate", type=float, help="Another rate for the threshold than the bundle's.")
@click.option(
    "--experts",
    metavar="NAME,...",
    help="Experts that take part; the threshold follows from their held-out scores.  [default: all of the bundle]",
)
@sidecar_option
@click.option("--workers", type=click.IntRange(1), help="Actors that score.  [default: by the cluster]")
@click.option("--threads", type=click.IntRange(1), help="Threads of an actor.  [default: by the cluster]")
@device_option
@address_option
@reporting
def score(
    archive: str,
    bundles: str,
    out: str,
    categories: tuple[str, ...],
    splits: tuple[str, ...],
    maps: Any,
    top_maps: int,
    false_positive_rate: float | None,
    experts: str | None,
    sidecar: str | None,
    workers: int | None,
    threads: int | None,
    device: str,
    address: str | None,
    as_json: bool,
) -> None:
    """Score every image of ARCHIVE with the published bundles.

    Killed at any moment and given again, the command scores what is missing. An image that cannot be read becomes a row
    with status error.
    """
    from uniad_ray import text
    from uniad_ray.config.loading import validate
    from uniad_ray.pipelines.run_plan import ScoreOptions, selected_categories
    from uniad_ray.pipelines.score import score as run
    from uniad_ray.pipelines.sizing import Workers

    document = {
        "categories": selected_categories(categories),
        "splits": selected_categories(splits),
        "maps": maps,
        "top_maps": top_maps,
        "false_positive_rate": false_positive_rate,
        "experts": None if experts is None else [name.strip() for name in experts.split(",")],
    }
    options = validate(ScoreOptions, document, where="the command line")
    report = run(
        archive,
        bundles,
        out,
        options=options,
        sidecar=sidecar,
        workers=Workers(workers, threads, device),
        address=address,
    )
    print_report(report, as_json, text.scored)


@click.command()
@click.argument("run")
@marks_option
@resamples_option
@confidence_option
@reporting
def evaluate(run: str, with_marks: bool, resamples: int, confidence: float, as_json: bool) -> None:
    """Set the scores of RUN against labels, reviewers' marks and masks; print and store the figures."""
    from uniad_ray import text
    from uniad_ray.pipelines.evaluate import evaluate as evaluate_run

    found = evaluate_run(run, with_marks=with_marks, resamples=resamples, confidence=confidence)
    print_report(found, as_json, text.evaluated)


@click.command()
@click.argument("run")
@click.option(
    "--format", "kind", type=click.Choice(["html", "json", "parquet", "markdown"]), default="html", show_default=True
)
@click.option("--out", metavar="PATH", help="File to write.  [default: below RUN/report]")
@marks_option
@resamples_option
@confidence_option
@reporting
def report(
    run: str, kind: Any, out: str | None, with_marks: bool, resamples: int, confidence: float, as_json: bool
) -> None:
    """Write a report of RUN: figures, curves, the images to look at, errors, lineage.

    The HTML report is one file that needs nothing else; a run without labels gets the parts that need none.
    """
    from uniad_ray import text
    from uniad_ray.pipelines.report import report as report_run

    result = report_run(run, format=kind, out=out, with_marks=with_marks, resamples=resamples, confidence=confidence)
    print_report(result, as_json, text.reported)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--out", metavar="PATH", help="HTML file to write beside what is printed.")
@marks_option
@resamples_option
@confidence_option
@reporting
def compare(
    runs: tuple[str, ...], out: str | None, with_marks: bool, resamples: int, confidence: float, as_json: bool
) -> None:
    """Compare runs on the same archive with the first: figures with paired intervals, decisions that changed."""
    from uniad_ray import text
    from uniad_ray.pipelines.compare import compare as compare_runs

    found = compare_runs(runs, out=out, with_marks=with_marks, resamples=resamples, confidence=confidence)
    print_report(found, as_json, text.compared)
