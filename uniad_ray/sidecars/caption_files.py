"""The files of a caption sidecar: counted for its manifest, and without the captions of deleted images."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.ingest.deletions import deletions, read_deletion
from uniad_ray.archive.ingest.moves import Moves, is_compacted
from uniad_ray.archive.manifest import Chunk, chunk_name, chunks, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_chunk, read_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import SidecarError
from uniad_ray.sidecars.captions import (
    MANIFEST_NAME,
    CaptionManifest,
    CaptionPlan,
    caption_path,
    read_caption_sidecar,
)

_READ_THREADS: Final = 16


def finish_captions(
    plan: CaptionPlan, archive: str, archive_digest: str, sidecar: Location, work: Iterable[Chunk]
) -> CaptionManifest:
    """Checks that every image has a row, counts errors and tokens, and writes the manifest.

    Args:
        plan: The plan.
        archive: URI of the archive.
        archive_digest: Digest of its content.
        sidecar: Root of the sidecar.
        work: The captioned chunks of the archive.

    Raises:
        SidecarError: A chunk has another number of rows than images.
    """

    def read(chunk: Chunk) -> tuple[str, list[dict[str, Any]]]:
        location = sidecar / caption_path(chunk.name)
        columns = ["status", "error_kind", "prompt_tokens", "tokens", "seconds"]
        rows = read_table(dataset_schema("caption_sidecar"), location, columns=columns).to_pylist()
        if len(rows) != chunk.rows:
            raise SidecarError(
                f"{location}: {len(rows)} rows for {chunk.rows} images; delete the file and run the same command again"
            )
        return hashlib.sha256(location.read_bytes()).hexdigest(), rows

    work = list(work)
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = list(pool.map(read, work))
    rows = [row for _, own in found for row in own]
    finished = CaptionManifest(
        plan=plan,
        archive=archive,
        archive_digest=archive_digest,
        images=len(rows),
        errors=dict(sorted(Counter(row["error_kind"] for row in rows if row["status"] == "error").items())),
        prompt_tokens=sum(row["prompt_tokens"] or 0 for row in rows),
        tokens=sum(row["tokens"] or 0 for row in rows),
        seconds=round(sum(row["seconds"] for row in rows), 3),
        files={chunk.name: digest for chunk, (digest, _) in zip(work, found, strict=True)},
    )
    (sidecar / MANIFEST_NAME).write_json(finished.model_dump(mode="json"))
    return finished


def forget_deleted_images(sidecar: Location, archive: Location) -> int:
    """Deletes the captions of images that the archive's record of deletions names; others stay.

    An interrupted call goes on with the next one.

    Args:
        sidecar: Root of the sidecar.
        archive: Root of the archive.

    Returns:
        Number of captions that were deleted.

    Raises:
        ArchiveError: The archive or a file is corrupt.
    """
    schema = dataset_schema("caption_sidecar")
    names = deletions(archive)[0]
    present = {chunk.name: chunk.rows for chunk in chunks(read_manifest(archive))} if names else {}
    tables: dict[str, pa.Table] = {}
    for info in (sidecar / "captions").list(suffix=".parquet") if names else ():
        name = info.relative.removesuffix(".parquet")
        # Images only ever leave a chunk, so equal numbers mean equal images.
        if read_table(schema, info.location, columns=["row_key"]).num_rows != present.get(name):
            tables[name] = read_table(schema, info.location)
    removed = 0
    for deletion in names if tables else ():
        gone = read_deletion(archive, deletion, columns=["row_key"]).column(0).combine_chunks()
        for name, table in tables.items():
            tables[name] = table.filter(pc.invert(pc.is_in(table.column("row_key"), value_set=gone)))
            removed += table.num_rows - tables[name].num_rows
    for name, table in tables.items():
        location = sidecar / caption_path(name)
        if table.num_rows:
            location.write_bytes(encode_table(schema, table))
        else:
            location.delete()
    return removed


def carry_over_captions(sidecar: Location, archive: Location, work: Iterable[Chunk]) -> set[str]:
    """Copies the captions of images that a compaction has moved into the files of their present chunks.

    A chunk without a caption of every image is left to be captioned. Files of former chunks are deleted last.

    Args:
        sidecar: Root of the sidecar.
        archive: Root of the archive.
        work: Chunks of the archive without a file in the sidecar.

    Returns:
        Names of the chunks that got a file.

    Raises:
        ArchiveError: The archive or a file is corrupt.
    """
    moved = [chunk for chunk in work if is_compacted(chunk.shard)]
    if not moved:
        return set()
    schema, moves = dataset_schema("caption_sidecar"), Moves.read(archive)
    present = {info.relative.removesuffix(".parquet") for info in (sidecar / "captions").list(suffix=".parquet")}
    written: set[str] = set()
    former: set[str] = set()
    for chunk in moved:
        keys = read_chunk(archive, chunk, columns=["row_key"]).column(0).combine_chunks()
        names = moves.former_chunks(keys) & present
        tables = [read_table(schema, sidecar / caption_path(name)) for name in sorted(names)]
        table = pa.concat_tables([schema.arrow.empty_table(), *tables])
        places = pc.index_in(keys, value_set=table.column("row_key").combine_chunks())
        if places.null_count == 0:
            (sidecar / caption_path(chunk.name)).write_bytes(encode_table(schema, table.take(places)))
            written.add(chunk.name)
            former |= names
    for name in sorted(former):
        keys = read_table(schema, sidecar / caption_path(name), columns=["row_key"]).column(0)
        # Another present chunk may still wait for some of them.
        if all(chunk_name(*place) in present | written for place in moves.places(keys.combine_chunks())):
            (sidecar / caption_path(name)).delete()
    return written


def captions_of(sidecar: Location, archive: Location) -> CaptionManifest:
    """Reads the manifest of a finished caption sidecar of an archive.

    Raises:
        SidecarError: There is none, or it is of another archive.
    """
    known = read_caption_sidecar(sidecar)
    if known.archive != archive.uri:
        raise SidecarError(f"{sidecar}: has captions of {known.archive}, not of {archive}; name its own archive")
    return known


def delete_captions(sidecar: Location, archive: Location) -> int:
    """Deletes the captions of deleted images from a finished sidecar, and writes its manifest anew.

    Args:
        sidecar: Root of the sidecar.
        archive: Root of the archive.

    Returns:
        Number of captions that were deleted.

    Raises:
        ArchiveError: The archive or a file is corrupt.
        SidecarError: There is no finished caption sidecar, or it is of another archive.
    """
    known = captions_of(sidecar, archive)
    removed = forget_deleted_images(sidecar, archive)
    manifest = read_manifest(archive)
    captioned = {info.relative.removesuffix(".parquet") for info in (sidecar / "captions").list(suffix=".parquet")}
    if removed or captioned != set(known.files):
        own = [chunk for chunk in chunks(manifest) if chunk.name in captioned]
        finish_captions(known.plan, archive.uri, manifest.digest, sidecar, own)
    return removed
