"""The verbs that fill archives and sidecars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from uniad_ray.errors import ConfigError
from uniad_ray.verbs.defaults import DEFAULT_PROFILE, Device

if TYPE_CHECKING:
    from uniad_ray.archive.layouts.entries import Label, Split
    from uniad_ray.pipelines.caption.engines import Engine
    from uniad_ray.pipelines.caption.job import CaptionReport
    from uniad_ray.pipelines.ingest.job import IngestReport
    from uniad_ray.pipelines.precompute.job import PrecomputeReport
    from uniad_ray.sidecars.encoding import Stage


def ingest(
    source: str,
    archive: str,
    *,
    manifest: str | None = None,
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
        manifest: File that lists the images with labels, masks and metadata: JSON lines, CSV, or a manifest of Lookout
            for Vision. Its relative paths start at `source`.
        category: Name of the category, or the one to take from a source that holds several.
        layout: Layout of the source; `auto` recognises it.
        split: Split of a plain folder, and of lines of a manifest without one; default `archive`.
        label: Label of a plain folder, and of lines of a manifest without one; default unknown.
        shard_images: Maximum number of images in a shard.
        shard_mib: Maximum size of a shard in MiB.
        chunk_images: Maximum number of images in a row group, 1 to 64.
        address: Ray cluster to join; default starts Ray on this machine.

    Returns:
        How many files were taken or known, which were changed or rejected, and warnings.

    Raises:
        ArchiveError: The layout is unknown, the source holds no images, a limit is out of range, or the archive is
            corrupt.
        LeaseError: Another process ingests into the archive, or deletes from it.
        StoreError: A store cannot be read or written.
    """
    from uniad_ray.archive.shards import ShardLimits
    from uniad_ray.pipelines.ingest.job import ingest as run

    limits = ShardLimits(rows=shard_images, bytes=shard_mib << 20, row_group_rows=chunk_images)
    return run(
        source,
        archive,
        manifest=manifest,
        category=category,
        layout=layout,
        split=split,
        label=label,
        limits=limits,
        address=address,
    )


def caption(
    archive: str,
    *,
    out: str,
    engine: Engine = "auto",
    model: str | None = None,
    url: str | None = None,
    prompt: str = "free",
    classes: Sequence[str] | None = None,
    options: Sequence[str] = (),
    categories: Sequence[str] = (),
    retry_errors: bool = False,
    workers: int | None = None,
    address: str | None = None,
) -> CaptionReport:
    """Asks a vision-language model about every image of an archive once.

    Profiles read the captions with `captioner: {kind: table, source: out}`. After a crash, the same call resumes.

    Args:
        archive: Root of the archive.
        out: Root of the captions; created if missing.
        engine: vLLM through Ray Data, vLLM in an actor, a server, or what fits the cluster.
        model: Name of the model on the server, or its folder.
        url: Base URL of the server.
        prompt: `free`, `structured` (needs `classes`), or a prompt of your own.
        classes: Classes of objects for the structured prompt.
        options: Assignments such as `max_tokens=256`, for the engine.
        categories: Categories to caption; default all.
        retry_errors: Ask about all images without a caption, also those that were asked about.
        workers: Actors that caption; default chooses by the cluster.
        address: Ray cluster to join; default starts Ray on this machine.

    Returns:
        The number of images, errors by kind, and tokens.

    Raises:
        ConfigError: An option is wrong, or vLLM is not installed.
        CaptionError: The model cannot be reached, or rejects all images of a batch.
        SidecarError: The sidecar has captions of another model or prompt.
    """
    from uniad_ray.pipelines.caption.engines import Question, parse_options
    from uniad_ray.pipelines.caption.job import caption as run
    from uniad_ray.pipelines.cluster.sizing import Workers

    question = Question(engine, model, url, prompt, tuple(classes or ()), parse_options(options))
    return run(
        archive,
        out,
        question,
        categories=categories,
        retry_errors=retry_errors,
        workers=Workers(workers),
        address=address,
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
    """Computes features, segments, captions and descriptions of an archive once, for any number of fits and runs.

    `fit` and `score` read them with `sidecar=out` and give the same results as without. After a crash, the same call
    resumes.

    Args:
        archive: Root of the archive.
        out: Root of the sidecar; created if missing.
        stages: Some of `features`, `segments`, `captions` and `descriptions`; default all that can be computed.
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
    from uniad_ray.sidecars.encoding import STAGES, by_stage, check_stage

    if bundles is not None and (overrides or profile is not None):
        raise ConfigError("--bundles has its own configuration; omit --profile and --set, or omit --bundles")
    chosen = profile or DEFAULT_PROFILE
    counts, limits, devices = by_stage(workers), by_stage(threads), by_stage(device)
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
