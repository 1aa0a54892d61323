"""`uniad-ray inspect`: summarises an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from uniad_ray.cli.options import print_report, reporting
from uniad_ray.cli.tables import LISTED, mib, table

if TYPE_CHECKING:
    from uniad_ray.archive.manifest import ArchiveManifest


@click.command()
@click.argument("archive")
@reporting
def inspect(archive: str, as_json: bool) -> None:
    """Show the categories, splits, labels and defects of ARCHIVE."""
    from uniad_ray.archive.manifest import read_manifest
    from uniad_ray.archive.stores.location import Location

    print_report(read_manifest(Location.parse(archive)), as_json, as_text)


def as_text(manifest: ArchiveManifest) -> str:
    """Summary of an archive."""
    rows = []
    for name, summary in manifest.categories.items():
        shards = [shard for shard in manifest.shards if shard.category == name]
        for key, count in summary.labels.items():
            split, label = key.split("/")
            rows.append((name, split, label, count))
        size = sum(shard.bytes for shard in shards)
        rows.append((name, "all", f"{len(shards)} shards, {mib(size)}", summary.images))
    lines = [table(("category", "split", "label", "images"), rows)]
    for name, summary in manifest.categories.items():
        if summary.defect_kinds:
            kinds = ", ".join(f"{kind} {count}" for kind, count in summary.defect_kinds.items())
            lines.append(f"{name} defects: {kinds}")
    lines.append(f"{manifest.images} images, digest {manifest.digest[:12]}, schema version {manifest.schema_version}")
    if manifest.rejected_count:
        lines.append(f"{manifest.rejected_count} files were rejected:")
        lines += [f"  {entry.source_uri}: {entry.reason}" for entry in manifest.rejected[:LISTED]]
    return "\n".join(lines)
