"""The verbs of the command line as Python functions, with the same names and defaults.

`uniad-ray fit ARCHIVE --bundles ROOT` and `fit(archive, bundles=root)` do the same: the command line calls these
functions. All paths are local paths or `s3://` URIs. Heavy packages are imported only when a function is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from uniad_ray.errors import ConfigError

if TYPE_CHECKING:
    from uniad_ray.archive.layouts.entries import Label, Split
    from uniad_ray.evaluation.run import EvaluationReport
    from uniad_ray.nights.model import NightReport
    from uniad_ray.pipelines.fit.job import FitReport
    from uniad_ray.pipelines.ingest.job import IngestReport
    from uniad_ray.pipelines.precompute.job import PrecomputeReport
    from uniad_ray.pipelines.score.job import ScoreReport
    from uniad_ray.reporting.build import Format, ReportResult
    from uniad_ray.reporting.comparison.model import ComparisonReport
    from uniad_ray.sidecars.encoding import Stage

Device = Literal["auto", "cpu", "cuda"]
ValueT = TypeVar("ValueT")

DEFAULT_PROFILE = "embedded"


def ingest(
    source: str,
    archive: str,
    *,
    category: str | None = None,
    layout: str = "auto",
    split: Split | None = None,
    label: Label | None = None,
    shard_images: int = 1024,
    shard_mib: int = 128,
    chunk_images: int = 64,
    address: str | None = None,
) -> IngestReport:
    """Reads the images of a source into the Parquet shards of an archive.

    After a crash, the same call resumes. A later call adds what is new: files, and other content under a known path. It
    reads rejected files again.

    Args:
        source: Folder or prefix in a known layout, or with any images.
        archive: Root of the archive; created if missing.
        category: Name of the category, or the one to take from a source that holds several.
        layout: Layout of the source; `auto` recognises it.
        split: Split of a plain folder; default `archive`.
        label: Label of a plain folder; default unknown.
        shard_images: Maximum number of images in a shard.
        shard_mib: Maximum size of a shard in MiB.
        chunk_images: Maximum number of images in a row group, 1 to 64.
        address: Ray cluster to join; default starts Ray on this machine.

    Returns:
        How many files were taken or known, which were changed or rejected, and warnings.

    Raises:
        ArchiveError: The layout is unknown, the source holds no images, a limit is out of range, or the archive is
            corrupt.
        StoreError: A store cannot be read or written.
    """
    from uniad_ray.archive.shards import ShardLimits
    from uniad_ray.pipelines.ingest.job import ingest as run

    limits = ShardLimits(rows=shard_images, bytes=shard_mib << 20, row_group_rows=chunk_images)
    return run(
        source, archive, category=category, layout=layout, split=split, label=label, limits=limits, address=address
    )


def precompute(
    archive: str,
    *,
    out: str,
    stages: Sequence[Stage] | None = None,
    bundles: str | None = None,
    categories: Sequence[str] = (),
    profile: str | None = None,
    overrides: Sequence[str] = (),
    workers: int | Mapping[Stage, int] | None = None,
    threads: int | Mapping[Stage, int] | None = None,
    device: Device | Mapping[Stage, Device] = "auto",
    address: str | None = None,
) -> PrecomputeReport:
    """Computes features, segments and descriptions of an archive once, for any number of fits and runs.

    `fit` and `score` read them with `sidecar=out` and give the same results as without. After a crash, the same call
    resumes.

    Args:
        archive: Root of the archive.
        out: Root of the sidecar; created if missing.
        stages: Some of `features`, `segments` and `descriptions`; default all that can be computed.
        bundles: Root of published bundles. Their configuration and what they learned replace `profile` and `overrides`.
        categories: Categories to precompute; default all.
        profile: A profile's name, or a YAML file; default `embedded`.
        overrides: Assignments such as `calibration.holdout=0.3`.
        workers: Actors of every stage, or by stage; default chooses by the cluster.
        threads: Threads of an actor, for every stage or by stage; default 1.
        device: `auto`, `cpu` or `cuda`, for every stage or by stage.
        address: Ray cluster to join; default starts Ray on this machine.

    Returns:
        The fields by category and stage, and the number of images.

    Raises:
        ConfigError: The configuration is wrong, there is no such stage, or `bundles` come with `profile` or
            `overrides`.
        ArchiveError: The archive cannot be read, or has no such category.
        BundleError: A category has no published bundle, or the bundle is corrupt.
        SidecarError: A stage cannot be stored, the sidecar has another plan, or rows are missing.
    """
    from uniad_ray.config.loading import load_config
    from uniad_ray.pipelines.cluster.sizing import Workers
    from uniad_ray.pipelines.precompute.job import precompute as run
    from uniad_ray.sidecars.encoding import STAGES, check_stage

    if bundles is not None and (overrides or profile is not None):
        raise ConfigError("--bundles has its own configuration; omit --profile and --set, or omit --bundles")
    chosen = profile or DEFAULT_PROFILE
    counts, limits, devices = _by_stage(workers), _by_stage(threads), _by_stage(device)
    return run(
        archive,
        out,
        load_config(chosen, overrides),
        bundles=bundles,
        stages=None if stages is None else [check_stage(name) for name in stages],
        categories=categories,
        workers={stage: Workers(counts.get(stage), limits.get(stage), devices.get(stage, "auto")) for stage in STAGES},
        address=address,
    )


def fit(
    archive: str,
    *,
    bundles: str,
    categories: Sequence[str] = (),
    profile: str = DEFAULT_PROFILE,
    overrides: Sequence[str] = (),
    names: str | None = None,
    sidecar: str | None = None,
    known_defects: str | None = None,
    publish: bool = True,
    accept_unusual: bool = False,
    workers: int | None = None,
    checkpoints: str | None = None,
    device: Device = "auto",
    address: str | None = None,
) -> FitReport:
    """Fits a bundle for each category of an archive on its normal images.

    If some normal images do not look like the others, the bundle is written but not published.

    Args:
        archive: Root of the archive.
        bundles: Root of the bundles.
        categories: Categories to fit; default all.
        profile: A profile's name, or a YAML file.
        overrides: Assignments such as `calibration.holdout=0.3`.
        names: YAML file with readable names for object classes, such as `part-1: bolt`.
        sidecar: Root of a sidecar of the archive; its content is read instead of computed.
        known_defects: Folder of images with known defects. With eight or more, the expert selection uses them; nothing
            is learned from them. Anomalous images of the split `validation` are used without this option.
        publish: Publish each bundle once it is fitted and verified.
        accept_unusual: Publish even if some normal images do not look like the others.
        workers: Processes that train students; default chooses by the cluster.
        checkpoints: Root of the training checkpoints; default is below `bundles`.
        device: `auto`, `cpu` or `cuda`.
        address: Ray cluster to join; default starts Ray on this machine.

    Returns:
        The bundles, and the reason of each category that failed.

    Raises:
        ConfigError: The configuration is wrong.
        ArchiveError: The archive cannot be read, or has no such category.
        SidecarError: The sidecar is missing, unfinished, corrupt, or of another archive.
    """
    from uniad_ray.config.loading import load_config
    from uniad_ray.perception.objects.names import names_override
    from uniad_ray.pipelines.fit.job import fit as run

    return run(
        archive,
        bundles,
        load_config(profile, overrides, from_files={} if names is None else {names: names_override(names)}),
        categories=categories,
        sidecar=sidecar,
        known_defects=known_defects,
        publish=publish,
        accept_unusual=accept_unusual,
        device=device,
        workers=workers,
        checkpoints=checkpoints,
        address=address,
    )


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


def evaluate(run: str, *, with_marks: bool = True, resamples: int = 1000, confidence: float = 0.95) -> EvaluationReport:
    """Evaluates the scores of a run against labels, reviewers' marks and masks, and stores the metrics.

    Args:
        run: Root of a finished run.
        with_marks: Use reviewers' marks; a mark overrides the label of its image.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        confidence: Confidence of the intervals, above 0 and below 1.

    Returns:
        The metrics, and notes on what was left out. A run without labels has only notes.

    Raises:
        RunError: There is no run, or it is unfinished or corrupt.
        ArchiveError: A file of marks is corrupt.
    """
    from uniad_ray.evaluation.run import evaluate as evaluate_run

    return evaluate_run(run, with_marks=with_marks, resamples=resamples, confidence=confidence)


def report(
    run: str,
    *,
    format: Format = "html",
    out: str | None = None,
    with_marks: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> ReportResult:
    """Evaluates a run and writes a report as one file.

    Args:
        run: Root of a finished run.
        format: `html`, `json`, `parquet` or `markdown`.
        out: File to write; default is below `RUN/report`.
        with_marks: Use reviewers' marks; a mark overrides the label of its image.
        resamples: Number of bootstrap resamples; 0 disables intervals.
        confidence: Confidence of the intervals, above 0 and below 1.

    Returns:
        The path and size of the file.

    Raises:
        RunError: There is no run, or it is unfinished or corrupt.
        StoreError: The file cannot be written.
    """
    from uniad_ray.reporting.build import report as report_run

    return report_run(run, format=format, out=out, with_marks=with_marks, resamples=resamples, confidence=confidence)


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


def nightly(*, config: str, night: str | None = None, dry_run: bool = False) -> NightReport:
    """Finishes the nights that were interrupted, then runs the next: ingest, score, drift, report, history, alarms.

    After a crash at any step, the same call goes on with that step, and ends with the same rows, history and messages.

    Args:
        config: YAML file of the nights.
        night: Name of the next night; default its date. A night that is there is not repeated.
        dry_run: Stop before messages are sent, and return them; the next call without it sends them.

    Returns:
        The nights that this call finished, with their alarms, and the outcome of each message.

    Raises:
        ConfigError: The configuration is wrong, or a secret is missing.
        ArchiveError: A source or the archive cannot be read.
        RunError: A record of a night is corrupt.
        StoreError: A store cannot be read or written.
    """
    from uniad_ray.nights.config import load_nightly
    from uniad_ray.nights.job import nightly as run

    return run(load_nightly(config), night=night, dry_run=dry_run)


def _by_stage(value: ValueT | Mapping[Stage, ValueT]) -> dict[Stage, ValueT]:
    """Values by stage, from one value for all stages or from a mapping for some.

    Raises:
        ConfigError: There is no such stage.
    """
    from uniad_ray.sidecars.encoding import STAGES, check_stage

    if isinstance(value, Mapping):
        return {check_stage(stage): own for stage, own in value.items()}
    return dict.fromkeys(STAGES, value)
