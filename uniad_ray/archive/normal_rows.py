"""The rows of an archive that a category is fitted on: its normal images outside of the test split, unless excluded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from uniad_ray.archive.exclusions import NamedImage, read_exclusions
from uniad_ray.archive.manifest import ArchiveManifest, Chunk, chunks
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores.location import Location

FITTED_SPLITS: Final = ("train", "validation")
"""Splits with the normal images of a fit; sources without splits have only `archive`."""


def read_normal_rows(
    archive: Location,
    manifest: ArchiveManifest,
    category: str,
    columns: Sequence[str],
    exclude: Collection[str] = (),
) -> list[tuple[tuple[Any, ...], Chunk, int]]:
    """Reads columns of the images that a category is fitted on.

    These are the normal images of the splits `train` and `validation`, or of the split `archive` if there are none,
    without those that the archive's exclusions or `exclude` name.

    Args:
        archive: Root of the archive.
        manifest: Its manifest.
        category: Category of the archive.
        columns: Columns of schema `image`.
        exclude: Names of further images to leave out, as `NamedImage.is_named` compares them; copies of the same bytes
            are left out too.

    Returns:
        In archive order, for each image: the values of the columns, its chunk, and its position there.

    Raises:
        ArchiveError: A shard or a file of exclusions is corrupt.
    """
    excluded = {image_id for own, image_id in read_exclusions(archive) if own == category}
    for splits in (FITTED_SPLITS, ("archive",)):
        own = chunks(manifest, categories=[category], splits=splits)
        rows = [
            (values[: len(columns)], NamedImage(*values[len(columns) : -1]), chunk, position)
            for values, chunk, position in read_rows(
                archive, own, [*columns, "row_key", "image_id", "category", "source_uri", "label"]
            )
            if values[-1] == "normal"
        ]
        if rows:
            excluded |= {row.image_id for _, row, _, _ in rows if any(row.is_named(name) for name in exclude)}
            return [(values, chunk, position) for values, row, chunk, position in rows if row.image_id not in excluded]
    return []


def read_rows(
    archive: Location, own: Iterable[Chunk], columns: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], Chunk, int]]:
    """Reads columns of all images of some chunks; yields what `read_normal_rows` returns.

    Raises:
        ArchiveError: A shard is corrupt.
    """
    for chunk in own:
        table = read_chunk(archive, chunk, columns=list(dict.fromkeys(columns)))
        rows = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
        yield from ((values, chunk, position) for position, values in enumerate(rows))
