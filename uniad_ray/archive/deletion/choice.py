"""Which images to delete: by name, or by category, metadata and time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from uniad_ray.archive.exclusions import find_images
from uniad_ray.archive.ingest.deletions import DeletedRow
from uniad_ray.archive.ingest.known import sha256
from uniad_ray.archive.ingest.moves import Moves
from uniad_ray.archive.manifest import ArchiveManifest, Chunk, choose_categories, chunks
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError

_COLUMNS = ("row_key", "image_id", "source_uri", "captured_at", "metadata")


@dataclass(frozen=True)
class DeletionChoice:
    """Images of an archive; all given conditions must hold.

    Attributes:
        names: Names of images, as `NamedImage.is_named` compares them; copies of the same bytes in the category
            are chosen too.
        categories: Their categories; empty for all.
        metadata: Values of metadata columns, such as `serial`, which names a part.
        after: Only images captured at this time or later.
        before: Only images captured before this time.
        shards: Only images of these shards, or that were in them before a compaction; None for all.
    """

    names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    shards: frozenset[str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it names nothing, and so would choose everything."""
        given = (self.names, self.categories, self.metadata, self.after, self.before)
        return not any(given) and self.shards is None

    @property
    def needs_time(self) -> bool:
        """Whether images without a capture time cannot be chosen."""
        return self.after is not None or self.before is not None


@dataclass(frozen=True)
class Chosen:
    """What a choice fits.

    Attributes:
        rows: The images.
        without_time: Images that fit apart from the time, which they lack; they are not chosen.
    """

    rows: tuple[DeletedRow, ...]
    without_time: int


def parse_metadata(text: str) -> tuple[str, str]:
    """Parses `NAME=VALUE`.

    Raises:
        ArchiveError: There is no name or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArchiveError(f"--where {text}: write NAME=VALUE, such as serial=A17")
    return name, value


def parse_time(text: str, option: str) -> datetime:
    """Parses a date or a time, ISO 8601.

    Raises:
        ArchiveError: It is neither.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ArchiveError(f"{option} {text}: write a date or time such as 2026-11-30 or 2026-11-30T06:00") from error


def choose(archive: Location, manifest: ArchiveManifest, choice: DeletionChoice) -> Chosen:
    """Finds the images of a choice, in archive order.

    Raises:
        ArchiveError: A name, a category or a metadata column is not in the archive, a name fits several images, or a
            shard is corrupt.
    """
    categories = choose_categories(archive, manifest, choice.categories)
    named = find_images(archive, manifest, choice.names, categories)
    wanted = {(image.category, image.image_id) for image in named.values()}
    rows: list[DeletedRow] = []
    without_time = 0
    columns: set[str] = set()
    shards, moved = _shards(archive, manifest, choice.shards)
    for chunk in chunks(manifest, categories=categories, shards=shards):
        fitting = []
        is_whole = choice.shards is None or chunk.shard in choice.shards
        for row in read_chunk(archive, chunk, columns=_COLUMNS).to_pylist():
            if not is_whole and row["row_key"] not in moved:
                continue
            columns |= {entry["name"] for entry in row["metadata"]}
            if choice.names and (chunk.category, row["image_id"]) not in wanted:
                continue
            if not set(choice.metadata) <= {(entry["name"], entry["value"]) for entry in row["metadata"]}:
                continue
            if choice.needs_time and row["captured_at"] is None:
                without_time += 1
            elif _is_in_time(row["captured_at"], choice):
                fitting.append(row)
        rows += _with_masks(archive, chunk, fitting)
    unknown = sorted({name for name, _ in choice.metadata} - columns)
    if unknown:
        there = ", ".join(sorted(columns)) or "none"
        raise ArchiveError(f"{archive}: no image has the metadata {', '.join(unknown)}; there is {there}")
    return Chosen(tuple(rows), without_time)


def _shards(
    archive: Location, manifest: ArchiveManifest, chosen: frozenset[str] | None
) -> tuple[frozenset[str] | None, set[str]]:
    """The shards to look at, and the keys of rows that compactions have moved from chosen shards into them."""
    gone = (chosen or frozenset()) - {shard.path for shard in manifest.shards}
    if chosen is None or not gone:
        return chosen, set()
    places = (moves := Moves.read(archive)).places(moves.keys_of(gone))
    return chosen | {shard for shard, _ in places}, {key for keys in places.values() for key in keys}


def _with_masks(archive: Location, chunk: Chunk, rows: Sequence[dict[str, Any]]) -> Iterator[DeletedRow]:
    if not rows:
        return
    table = read_chunk(archive, chunk, columns=["row_key", "masks"])
    table = table.filter(pc.greater(pc.list_value_length(table.column("masks")), 0))
    masks = {
        row["row_key"]: tuple(sha256(mask["mask"]) for mask in row["masks"])
        for batch in table.to_batches(max_chunksize=16)
        for row in batch.to_pylist()
    }
    for row in rows:
        key = row["row_key"]
        yield DeletedRow(key, row["image_id"], masks.get(key, ()), chunk.category, row["source_uri"], chunk.shard)


def _is_in_time(captured_at: str | None, choice: DeletionChoice) -> bool:
    if captured_at is None:
        return True
    at = datetime.fromisoformat(captured_at)
    return (choice.after is None or not _is_before(at, choice.after)) and (
        choice.before is None or _is_before(at, choice.before)
    )


def _is_before(at: datetime, limit: datetime) -> bool:
    """Compares times; if one has no offset, the clocks on the wall are compared."""
    if at.tzinfo is None or limit.tzinfo is None:
        return at.replace(tzinfo=None) < limit.replace(tzinfo=None)
    return at.astimezone(UTC) < limit.astimezone(UTC)
