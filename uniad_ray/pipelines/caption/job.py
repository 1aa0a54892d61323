"""Captions an archive with Ray Data: chunk by chunk, with actors that load the model alone; the manifest last."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from uniad_ray.archive.deletion import deletions_explained
from uniad_ray.archive.manifest import Chunk, choose_categories, chunks, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import read_table
from uniad_ray.archive.stores.lease import hold
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError, SidecarError
from uniad_ray.perception.captions.captioners import CAPTION_PROMPT
from uniad_ray.perception.captions.structure import answer_schema, structured_prompt
from uniad_ray.perception.text.descriptions import check_class_names
from uniad_ray.pipelines.caption.engines import FREE, STRUCTURED, Question, build_engine, choose_engine
from uniad_ray.pipelines.caption.rows import is_worth_a_retry
from uniad_ray.pipelines.caption.task import CaptionTask
from uniad_ray.pipelines.caption.worker import CaptionWorker
from uniad_ray.pipelines.cluster.decoding import chunk_item
from uniad_ray.pipelines.cluster.session import configure_ray_data, ray_session, unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster, Workers, actors_reason, plan_actors
from uniad_ray.progress import Progress
from uniad_ray.sidecars.caption_files import carry_over_captions, finish_captions, forget_deleted_images
from uniad_ray.sidecars.caption_ranges import caption_ranges
from uniad_ray.sidecars.captions import adopt_caption_plan, caption_path, caption_plan
from uniad_ray.sidecars.plan import LEASE_FOLDER

_logger = logging.getLogger(__name__)

_BATCH: Final = 32
"""Images per call of the model; vLLM and servers batch within it."""


class CaptionReport(StrictModel):
    """Result of a caption job.

    Attributes:
        sidecar: Root of the sidecar.
        model: Name or URI of the model.
        images: Number of rows.
        errors: Number of rows without a caption, by kind.
        prompt_tokens: Tokens of images and prompts, as far as the engine reports them.
        tokens: Tokens of all answers, as far as the engine reports them.
        skipped_chunks: Chunks that an earlier call had already captioned.
    """

    sidecar: str
    model: str
    images: int
    errors: dict[str, int]
    prompt_tokens: int
    tokens: int
    skipped_chunks: int


def caption(
    archive: str,
    out: str,
    question: Question,
    *,
    categories: Sequence[str] | None = None,
    retry_errors: bool = False,
    workers: Workers | None = None,
    address: str | None = None,
) -> CaptionReport:
    """Asks a vision-language model about every image of an archive, and stores the answers in a sidecar.

    The model sees the original image, not the stretched input of the other networks. Chunks that are in the sidecar are
    skipped, so the same call resumes after a crash and captions what a grown archive has got since. One process at a
    time writes a sidecar.

    Args:
        archive: Root of the archive.
        out: Root of the sidecar; created if missing.
        question: What to ask, and whom.
        categories: Categories to caption; default all.
        retry_errors: Ask again about the images without a caption too; those that have one are never asked about.
        workers: Actors of engine `vllm` or `server`.
        address: Ray cluster to join; by default, Ray starts on this machine.

    Raises:
        ArchiveError: The archive cannot be read, or lacks a category.
        CaptionError: The model cannot be reached, or rejects all images of a batch.
        ConfigError: An option is wrong, or vLLM is not installed.
        LeaseError: Another process writes the sidecar.
        SidecarError: The sidecar has captions of another model or prompt, or rows are missing.
        WeightsError: The folder of the model is missing.
    """
    source, sidecar = Location.parse(archive), Location.parse(out)
    manifest = read_manifest(source)
    work = list(chunks(manifest, categories=choose_categories(source, manifest, categories)))
    if not work:
        raise SidecarError(f"{source}: no images to caption; check the archive with `uniad-ray inspect`")
    asked, schema = _question(question.prompt, question.classes)
    with ray_session(address) as cluster:
        config = choose_engine(question, cluster)
        plan = caption_plan(config.kind, build_engine(config).lineage(), asked, question.classes, schema)
        adopt_caption_plan(sidecar, plan)
        with hold(sidecar / LEASE_FOLDER, f"the sidecar {sidecar}") as lease:
            forget_deleted_images(sidecar, source)
            listed = (sidecar / "captions").list(suffix=".parquet")
            present = {info.relative.removesuffix(".parquet") for info in listed}
            present |= carry_over_captions(sidecar, source, [chunk for chunk in work if chunk.name not in present])
            pending = pending_chunks(work, present, sidecar, retry_errors=retry_errors)
            if pending:
                ranges = caption_ranges(sidecar, source, manifest, [chunk.category for chunk in pending])
                task = CaptionTask(plan, config, source, sidecar, ranges, lease)
                with deletions_explained(source, pending, "run the same command again"):
                    _caption_pending(task, pending, workers or Workers(), cluster)
            lease.check()
            everything = [chunk for chunk in chunks(manifest) if chunk.name in present | {one.name for one in pending}]
            finished = finish_captions(plan, source.uri, manifest.digest, sidecar, everything)
    return CaptionReport(
        sidecar=sidecar.uri,
        model=plan.model,
        images=finished.images,
        errors=finished.errors,
        prompt_tokens=finished.prompt_tokens,
        tokens=finished.tokens,
        skipped_chunks=len(work) - len(pending),
    )


def _question(prompt: str, classes: Sequence[str]) -> tuple[str, dict[str, Any] | None]:
    """The prompt in words, and the JSON schema of its answer."""
    if prompt != STRUCTURED:
        if classes:
            raise ConfigError("classes are for the structured prompt; add --prompt structured")
        return CAPTION_PROMPT if prompt == FREE else prompt, None
    if not classes:
        raise ConfigError("the structured prompt needs the classes of the objects; add --classes NAME,...")
    try:
        check_class_names(classes)
    except ValueError as error:
        raise ConfigError(f"--classes: {error}") from error
    return structured_prompt(classes), answer_schema(classes)


def pending_chunks(
    work: Sequence[Chunk], present: Collection[str], sidecar: Location, *, retry_errors: bool
) -> list[Chunk]:
    """Chunks with images to ask about.

    Args:
        work: Chunks of the archive.
        present: Names of those in the sidecar.
        sidecar: Root of the sidecar.
        retry_errors: Whether images count that the model was asked about without success.
    """
    return [chunk for chunk in work if chunk.name not in present or (retry_errors and _has_errors(sidecar, chunk))]


def _has_errors(sidecar: Location, chunk: Chunk) -> bool:
    columns = ["status", "error_kind"]
    table = read_table(dataset_schema("caption_sidecar"), sidecar / caption_path(chunk.name), columns=columns)
    return any(is_worth_a_retry(row) for row in table.to_pylist())


def _caption_pending(task: CaptionTask, pending: Sequence[Chunk], workers: Workers, cluster: Cluster) -> None:
    if task.engine.kind == "ray":
        from uniad_ray.pipelines.caption.ray_llm import caption_with_ray

        caption_with_ray(task, pending, workers, cluster)
        return
    with Progress("captioning", sum(chunk.rows for chunk in pending)) as progress:
        try:
            for row in _dataset(task, pending, workers, cluster).iter_rows():
                progress.advance(int(row["rows"]), int(row["errors"]))
        except Exception as error:
            raise unwrap(error) from error


def _dataset(task: CaptionTask, pending: Sequence[Chunk], workers: Workers, cluster: Cluster) -> Any:
    import ray

    configure_ray_data()
    wanted = requested_workers(task.engine.kind, workers, cluster)
    pool = plan_actors({"captions": wanted}, cluster)["captions"]
    is_alone = wanted.count == 1 and workers.count is None
    reason = "1 actor: one engine keeps the cores busy" if is_alone else actors_reason(pool, wanted, cluster)
    _logger.info("captions with %s; batches of %d images", reason, _BATCH)
    dataset = ray.data.from_items([chunk_item(chunk) for chunk in pending], override_num_blocks=len(pending))
    plan, engine = (part.model_dump(mode="json") for part in (task.plan, task.engine))
    return dataset.map_batches(
        CaptionWorker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(**{key: min(actors, len(pending)) for key, actors in pool.pool.items()}),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus or None,
        fn_constructor_args=(plan, engine, task.archive.uri, task.sidecar.uri),
        fn_constructor_kwargs={
            "batch": _BATCH,
            "threads": pool.threads,
            "value_ranges": dict(task.value_ranges),
            "lease": task.lease,
        },
    )


def requested_workers(engine: str, workers: Workers, cluster: Cluster) -> Workers:
    """The actors of a caption job: with vLLM one per GPU, or one without a GPU; with a server, on CPUs."""
    if engine != "vllm":
        return Workers(workers.count, workers.threads, "cpu")
    # On a CPU, a second engine takes half a minute and more than a GiB, and one keeps the cores busy.
    return workers if cluster.gpus else replace(workers, count=workers.count or 1)
