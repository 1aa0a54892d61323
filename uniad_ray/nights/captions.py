"""The step that captions the images of the archive that have no caption yet."""

from __future__ import annotations

import logging
from collections import Counter

from uniad_ray.archive.ingest.moves import present_shards
from uniad_ray.archive.manifest import MANIFEST_NAME, Chunk, chunks, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import read_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import CaptionError
from uniad_ray.nights.config import NightCaptions, NightlyConfig
from uniad_ray.nights.model import Captioned, Ingested
from uniad_ray.pipelines.caption.job import caption as caption_archive
from uniad_ray.pipelines.caption.job import pending_chunks
from uniad_ray.pipelines.cluster.sizing import Workers
from uniad_ray.sidecars.captions import MANIFEST_NAME as MANIFEST
from uniad_ray.sidecars.captions import caption_path, read_caption_sidecar

_logger = logging.getLogger(__name__)


def caption(config: NightlyConfig, options: NightCaptions, ingested: Ingested) -> Captioned:
    """Captions what the sidecar lacks, and asks again about images without an answer.

    Images that an earlier night could not caption are captioned too. The counts are those of the new images, read from
    the sidecar, so that they do not depend on how often the step was killed.

    Args:
        config: The configuration.
        options: Its section `captions`.
        ingested: What is new.

    Raises:
        CaptionError: The model cannot be reached, and the configuration requires captions.
        ConfigError: An option of the engine is wrong.
        SidecarError: The sidecar has captions of another model or prompt.
    """
    failure = None
    try:
        _ask(config, options, ingested)
    except CaptionError as error:
        if options.required:
            raise CaptionError(
                f"{error}; captions.required is true, so the night is not scored; the next call asks again"
            ) from error
        failure = str(error)
        _logger.warning("goes on without captions: %s", failure)
    return _counted(config, options, ingested, failure)


def _ask(config: NightlyConfig, options: NightCaptions, ingested: Ingested) -> None:
    """Starts the caption job, unless the night has no new images and every other image has its caption."""
    sidecar = Location.parse(options.sidecar)
    work = _work(config, options)
    pending = pending_chunks(work, _captioned_chunks(sidecar), sidecar, retry_errors=options.retry_errors)
    is_new = bool(ingested.shards or ingested.waiting)
    if not work or not (is_new or pending or not _is_finished(sidecar, work)):
        return
    caption_archive(
        config.archive,
        options.sidecar,
        options.question,
        categories=sorted({chunk.category for chunk in work}),
        retry_errors=options.retry_errors,
        workers=Workers(options.workers),
        address=config.address,
    )


def _is_finished(sidecar: Location, work: list[Chunk]) -> bool:
    """Whether the manifest lists all chunks; a killed job may have written the last chunk and no manifest."""
    return (sidecar / MANIFEST).exists() and {chunk.name for chunk in work} <= set(read_caption_sidecar(sidecar).files)


def _work(config: NightlyConfig, options: NightCaptions, shards: tuple[str, ...] | None = None) -> list[Chunk]:
    """Chunks of the archive to caption; a category that has no images yet is no mistake here."""
    archive = Location.parse(config.archive)
    if not (archive / MANIFEST_NAME).exists():
        return []
    manifest = read_manifest(archive)
    own = None if shards is None else present_shards(archive, manifest, shards)
    return list(chunks(manifest, categories=options.categories or None, shards=own))


def _captioned_chunks(sidecar: Location) -> set[str]:
    return {info.relative.removesuffix(".parquet") for info in (sidecar / "captions").list(suffix=".parquet")}


def _counted(config: NightlyConfig, options: NightCaptions, ingested: Ingested, failure: str | None) -> Captioned:
    sidecar = Location.parse(options.sidecar)
    own = _work(config, options, ingested.shards)
    captioned = _captioned_chunks(sidecar)
    errors: Counter[str] = Counter()
    for chunk in own:
        if chunk.name not in captioned:
            errors["not asked"] += chunk.rows
            continue
        rows = read_table(
            dataset_schema("caption_sidecar"), sidecar / caption_path(chunk.name), columns=["status", "error_kind"]
        )
        errors.update(row["error_kind"] for row in rows.to_pylist() if row["status"] == "error")
    return Captioned(images=sum(chunk.rows for chunk in own), errors=dict(sorted(errors.items())), failure=failure)
