"""Explains the failure of a job whose images were deleted while it read the archive."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from uniad_ray.archive.ingest.deletions import deletions, read_deletion
from uniad_ray.archive.manifest import Chunk, chunks, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError, LeaseError, UserError


@contextmanager
def deletions_explained(archive: Location, planned: Collection[Chunk], next_step: str) -> Iterator[None]:
    """Replaces the error of a job by the deletion that caused it, within a `with` block.

    Without it, the job says that a shard is missing or has too few rows, and to finish a deletion that may be finished.

    Args:
        archive: Root of the archive.
        planned: Chunks that the job reads.
        next_step: What to do after the deletion, as the end of a sentence.

    Raises:
        ArchiveError: The job failed, and images of its chunks have been deleted since they were listed.
    """
    try:
        yield
    except LeaseError:
        raise
    except Exception as error:
        if (found := _deletion(archive, planned)) is None:
            raise
        raise ArchiveError(f"{archive}: {found}; {next_step}") from error


def _deletion(archive: Location, planned: Collection[Chunk]) -> str | None:
    """Describes what happened to the chunks; None if nothing was deleted, or the archive cannot be read."""
    try:
        interrupted = deletions(archive)[1]
        shards = {chunk.shard for chunk in planned}
        for name in interrupted:
            if shards & set(read_deletion(archive, name, columns=["shard"]).column("shard").to_pylist()):
                return (
                    "images that were to be read are being deleted, or their deletion was interrupted; wait for it, or "
                    f"finish it with `uniad-ray archive delete {archive}`"
                )
        rows = {chunk.name: chunk.rows for chunk in chunks(read_manifest(archive))}
    except UserError:
        return None
    lost = sum(chunk.rows - rows.get(chunk.name, 0) for chunk in planned)
    return f"images that were to be read have been deleted meanwhile ({lost})" if lost else None
