"""The verbs that score archives, and evaluate, report and compare runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from uniad_ray.verbs.defaults import Device

if TYPE_CHECKING:
    from uniad_ray.evaluation.run import EvaluationReport
    from uniad_ray.pipelines.score.job import ScoreReport
    from uniad_ray.reporting.build import Format, ReportResult
    from uniad_ray.reporting.comparison.model import ComparisonReport


def score(
    archive: str,
    *,
    bundles: str,
    out: str,
    categories: Sequence[str] = (),
    splits: Sequence[str] = (),
    shards: Sequence[str] = (),
    maps: Literal["all", "top", "none"] = "all",
    top_maps: int = 100,
    false_positive_rate: float | None = None,
    experts: Sequence[str] | None = None,
    sidecar: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    device: Device = "auto",
    address: str | None = None,
) -> ScoreReport:
    """Scores every image of an archive with the published bundles.

    Every image gets a row; an unreadable image gets a row with status `error`. After a crash, the same call resumes.

    Args:
        archive: Root of the archive.
        bundles: Root of the bundles.
        out: Root of the run; created if missing.
        categories: Categories to score; default all.
        splits: Splits to score; default all.
        shards: Paths of the shards to score, as in the archive's manifest; default all.
        maps: Anomaly maps to keep.
        top_maps: Maps to keep per category with `maps="top"`.
        false_positive_rate: False-positive rate for the threshold, above 0 and below 1; default the bundle's.
        experts: Experts to use; the threshold follows from their held-out scores. Default all of the bundle.
        sidecar: Root of a sidecar of the archive; its content is read instead of computed.
        workers: Actors that score; default chooses by the cluster.
        threads: Threads of an actor; default chooses by the cluster.
        device: `auto`, `cpu` or `cuda`.
        address: Ray cluster to join; default starts Ray on this machine.

    Returns:
        The number of images, anomalies and errors, in all and by category.

    Raises:
        ConfigError: An option is out of range.
        ArchiveError: The archive cannot be read.
        BundleError: A category has no published bundle, or the bundle is corrupt.
        LeaseError: Another process works on the run.
        RunError: The run has another plan, or rows are missing at its end.
        SidecarError: The sidecar is missing, unfinished, corrupt, or of another archive.
    """
    from uniad_ray.config.loading import validate
    from uniad_ray.pipelines.cluster.sizing import Workers
    from uniad_ray.pipelines.score.job import score as run
    from uniad_ray.runs.plan import ScoreOptions, selected_categories

    document = {
        "categories": selected_categories(categories),
        "splits": selected_categories(splits),
        "shards": selected_categories(shards),
        "maps": maps,
        "top_maps": top_maps,
        "false_positive_rate": false_positive_rate,
        "experts": None if experts is None else tuple(experts),
    }
    return run(
        archive,
        bundles,
        out,
        options=validate(ScoreOptions, document, where="the options"),
        sidecar=sidecar,
        workers=Workers(workers, threads, device),
        address=address,
    )


def evaluate(
    run: str,
    *,
    with_marks: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
    workers: int | None = None,
    address: str | None = None,
) -> EvaluationReport:
    """Evaluates the scores of a run against labels, reviewers' marks and masks, and stores the metrics.

    Args:
        run: Root of a finished run.
        with_marks: Use reviewers' marks; a mark overrides the label of its image.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        confidence: Confidence of the intervals, above 0 and below 1.
        workers: Ray tasks that count pixels at the same time; 1 counts in this process. Default chooses by the number
            of images.
        address: Ray cluster to join if Ray is used; default starts Ray on this machine.

    Returns:
        The metrics, and notes on what was left out. A run without labels has only notes.

    Raises:
        RunError: There is no run, or it is unfinished or corrupt.
        ArchiveError: A file of marks is corrupt.
    """
    from uniad_ray.evaluation.run import evaluate as evaluate_run
    from uniad_ray.pipelines.evaluate import SharedCounter

    with SharedCounter(workers, address) as counter:
        return evaluate_run(run, with_marks=with_marks, resamples=resamples, confidence=confidence, counter=counter)


def report(
    run: str,
    *,
    format: Format = "html",
    out: str | None = None,
    with_marks: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
    captions: str | None = None,
    workers: int | None = None,
    address: str | None = None,
) -> ReportResult:
    """Evaluates a run and writes a report as one file.

    Args:
        run: Root of a finished run.
        format: `html`, `json`, `parquet` or `markdown`.
        out: File to write; default is below `RUN/report`.
        with_marks: Use reviewers' marks; a mark overrides the label of its image.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        confidence: Confidence of the intervals, above 0 and below 1.
        captions: Root of a caption sidecar, to show its texts beside the images.
        workers: Ray tasks that count pixels at the same time; 1 counts in this process. Default chooses by the number
            of images.
        address: Ray cluster to join if Ray is used; default starts Ray on this machine.

    Returns:
        The path and size of the file.

    Raises:
        RunError: There is no run, or it is unfinished or corrupt.
        SidecarError: There are no captions, or they are unfinished, corrupt or of another archive.
        StoreError: The file cannot be written.
    """
    from uniad_ray.pipelines.evaluate import SharedCounter
    from uniad_ray.reporting.build import report as report_run

    with SharedCounter(workers, address) as counter:
        return report_run(
            run,
            format=format,
            out=out,
            with_marks=with_marks,
            resamples=resamples,
            confidence=confidence,
            captions=captions,
            counter=counter,
        )


def compare(
    runs: Sequence[str],
    *,
    out: str | None = None,
    with_marks: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> ComparisonReport:
    """Compares runs on one archive with the first of them: metrics with paired intervals, and changed decisions.

    Args:
        runs: Roots of at least two finished runs.
        out: HTML file to write; default none.
        with_marks: Use reviewers' marks; a mark overrides the label of its image.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        confidence: Confidence of the intervals, above 0 and below 1.

    Returns:
        The differences of the metrics, and the images whose decision changed.

    Raises:
        RunError: There are fewer than two runs, one is unfinished, or they are not on the same archive.
        StoreError: The file cannot be written.
    """
    from uniad_ray.reporting.comparison.build import compare as compare_runs

    return compare_runs(runs, out=out, with_marks=with_marks, resamples=resamples, confidence=confidence)
