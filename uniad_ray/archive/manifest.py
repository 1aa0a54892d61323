"""The manifest of an archive: its shards, their contents and their digests."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError

from uniad_ray.archive.kinds import other_kind
from uniad_ray.archive.naming import normalised
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError, StoreError

MANIFEST_NAME = "manifest.json"
LISTED_REJECTS = 10_000
"""Maximum number of rejected files listed in the manifest; the report of an ingest lists all."""


class RowGroup(StrictModel):
    """One chunk of a shard: rows of a single split."""

    rows: int
    split: str


class Shard(StrictModel):
    """One Parquet file with images of a single category.

    Attributes:
        path: Path within the archive.
        category: Category of all rows.
        row_groups: Its chunks, in order.
        bytes: Size of the file.
        sha256: Digest of the file.
        labels: Rows by label (`normal`, `anomalous`, `unknown`) and split, as `split/label`.
        defect_kinds: Anomalous rows by defect kind.
    """

    path: str
    category: str
    row_groups: tuple[RowGroup, ...]
    bytes: int
    sha256: str
    labels: dict[str, int]
    defect_kinds: dict[str, int]

    @property
    def rows(self) -> int:
        """Number of image rows."""
        return sum(group.rows for group in self.row_groups)


class RejectedFile(StrictModel):
    """A source file that was rejected, with the reason."""

    source_uri: str
    reason: str


class CategorySummary(StrictModel):
    """Contents of the archive for one category."""

    images: int
    labels: dict[str, int]
    defect_kinds: dict[str, int]
    defects_config: list[dict[str, Any]] | None = Field(
        default=None, description="Usable entries of LOCO's defects_config.json, for the saturation areas of sPRO."
    )


class ArchiveManifest(StrictModel):
    """The archive as readers see it. Written last: a manifest always describes complete shards.

    Attributes:
        schema_version: Version of the image schema.
        digest: sha256 over the paths and digests of all shards; identifies the content of the archive.
        images: Number of image rows.
        categories: Summaries by category.
        shards: All shards, sorted by path.
        rejected_count: Number of rejected files in the last ingest of each source.
        rejected: The first `LISTED_REJECTS` rejected files.
        ingests: Ids of the ingests that filled the archive.
    """

    schema_version: int
    digest: str
    images: int
    categories: dict[str, CategorySummary]
    shards: tuple[Shard, ...]
    rejected_count: int
    rejected: tuple[RejectedFile, ...]
    ingests: tuple[str, ...]


@dataclass(frozen=True)
class Chunk:
    """One row group of one shard: the unit of work, retry and commit."""

    shard: str
    row_group: int
    rows: int
    category: str
    split: str

    @property
    def name(self) -> str:
        """Base name of all outputs derived from the chunk; depends only on shard and row group."""
        return chunk_name(self.shard, self.row_group)


def chunk_name(shard: str, row_group: int) -> str:
    """Name of the chunk of a shard, given by its path within the archive, and a row group."""
    return f"{shard.removeprefix('images/').removesuffix('.parquet')}-{row_group:05d}"


def chunks(
    manifest: ArchiveManifest,
    *,
    categories: Iterable[str] | None = None,
    splits: Iterable[str] | None = None,
    shards: Iterable[str] | None = None,
) -> Iterator[Chunk]:
    """Lists the chunks of an archive, ordered by shard and row group.

    Args:
        manifest: Manifest of the archive.
        categories: Categories to list; None lists all.
        splits: Splits to list; None lists all.
        shards: Paths of the shards to list; None lists all.
    """
    wanted_categories = None if categories is None else set(categories)
    wanted_splits = None if splits is None else set(splits)
    wanted_shards = None if shards is None else set(shards)
    for shard in manifest.shards:
        if wanted_shards is not None and shard.path not in wanted_shards:
            continue
        if wanted_categories is not None and shard.category not in wanted_categories:
            continue
        for index, group in enumerate(shard.row_groups):
            # Row groups whose images were all deleted stay, so that the others keep their numbers.
            if group.rows and (wanted_splits is None or group.split in wanted_splits):
                yield Chunk(shard.path, index, group.rows, shard.category, group.split)


def build_manifest(
    *,
    schema_version: int,
    shards: Iterable[Shard],
    rejected: Iterable[RejectedFile],
    rejected_further: int = 0,
    defects: dict[str, Any],
    ingests: Iterable[str],
) -> ArchiveManifest:
    """Summarises shards as a manifest; the order of the shards has no effect.

    Args:
        schema_version: Version of the image schema.
        shards: All shards.
        rejected: Rejected files.
        rejected_further: Number of rejected files that are not among `rejected`.
        defects: Usable entries of `defects_config.json` by category.
        ingests: Ids of the finished ingests.
    """
    ordered = sorted(shards, key=lambda shard: shard.path)
    digest = hashlib.sha256()
    for shard in ordered:
        digest.update(f"{shard.path} {shard.sha256}\n".encode())
    categories = {}
    for name in sorted({shard.category for shard in ordered}):
        own = [shard for shard in ordered if shard.category == name]
        categories[name] = CategorySummary(
            images=sum(shard.rows for shard in own),
            labels=_sum_counts(shard.labels for shard in own),
            defect_kinds=_sum_counts(shard.defect_kinds for shard in own),
            defects_config=defects.get(name),
        )
    all_rejected = sorted(set(rejected), key=lambda entry: (entry.source_uri, entry.reason))
    return ArchiveManifest(
        schema_version=schema_version,
        digest=digest.hexdigest(),
        images=sum(shard.rows for shard in ordered),
        categories=categories,
        shards=tuple(ordered),
        rejected_count=len(all_rejected) + rejected_further,
        rejected=tuple(all_rejected[:LISTED_REJECTS]),
        ingests=tuple(sorted(ingests)),
    )


def read_manifest(archive: Location) -> ArchiveManifest:
    """Reads the manifest of an archive.

    Raises:
        ArchiveError: The manifest is missing or corrupt, or the location is no archive; the message says what to do.
    """
    location = archive / MANIFEST_NAME
    if not location.exists():
        raise ArchiveError(
            other_kind(archive, "an archive")
            or f"{archive}: no {MANIFEST_NAME} found; complete `uniad-ray ingest SOURCE {archive}` first"
        )
    try:
        return ArchiveManifest.model_validate(location.read_json())
    except (ValidationError, StoreError) as error:
        detail = error.errors()[0]["loc"] if isinstance(error, ValidationError) else error
        raise ArchiveError(
            other_kind(archive, "an archive")
            or f"{location}: corrupt manifest ({detail}); run the ingest again to rebuild it"
        ) from error


def choose_categories(archive: Location, manifest: ArchiveManifest, chosen: Iterable[str] | None) -> list[str]:
    """The chosen categories of an archive, sorted and unique; all categories if none is chosen.

    Names are compared in their normalised Unicode form, unless the archive has the very name.

    Raises:
        ArchiveError: A chosen category is not in the archive.
    """
    spelled = {normalised(name): name for name in manifest.categories} | {name: name for name in manifest.categories}
    wanted = sorted({spelled.get(name, spelled.get(normalised(name), name)) for name in chosen or manifest.categories})
    if unknown := sorted(set(wanted) - set(manifest.categories)):
        known = ", ".join(sorted(manifest.categories))
        raise ArchiveError(f"{archive}: no category {', '.join(unknown)}; the archive has {known}")
    return wanted


def _sum_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for entry in counts:
        total.update(entry)
    return dict(sorted(total.items()))
