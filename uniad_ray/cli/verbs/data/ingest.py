"""`uniad-ray ingest`: reads images into an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from uniad_ray import verbs
from uniad_ray.archive.layouts.registry import layout_names
from uniad_ray.cli.options import address_option, print_report, reporting
from uniad_ray.cli.tables import LISTED

if TYPE_CHECKING:
    from uniad_ray.pipelines.ingest.job import IngestReport


@click.command()
@click.argument("source")
@click.argument("archive")
@click.option(
    "--manifest",
    help="File that lists the images with labels, masks and metadata: JSON lines, CSV, or a manifest of Lookout for "
    "Vision. Its relative paths start at SOURCE.",
)
@click.option("--category", help="Name of the category, or the one to take from a tree that holds several.")
@click.option("--layout", type=click.Choice(layout_names()), default="auto", show_default=True)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "archive"]),
    help="Split of a plain folder, or of manifest lines without one.  [default: archive]",
)
@click.option(
    "--label",
    type=click.Choice(["normal", "anomalous"]),
    help="Label of a plain folder, or of manifest lines without one.  [default: unknown]",
)
@click.option(
    "--shard-images",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Maximum number of images in a shard.",
)
@click.option(
    "--shard-mib", type=click.IntRange(1, 2048), default=128, show_default=True, help="Maximum size of a shard in MiB."
)
@click.option(
    "--chunk-images",
    type=click.IntRange(1, 64),
    default=64,
    show_default=True,
    help="Maximum number of images in a row group.",
)
@address_option
@reporting
def ingest(as_json: bool, **options: Any) -> int:
    """Read the images of SOURCE into the Parquet shards of ARCHIVE.

    SOURCE is an MVTec-style tree (MVTec AD, LOCO, MPDD, BTAD), VisA, MVTec AD 2, one of BMAD's sets, or any folder or
    prefix of images; docs/layouts.md shows them. With --manifest, a file lists the images. After a crash, the same
    command resumes. Later, it adds what is new, and reads rejected files again. If all files are rejected, the exit
    code is 1.
    """
    report = verbs.ingest(**options)
    print_report(report, as_json, as_text)
    return 1 if report.is_all_rejected else 0


def as_text(report: IngestReport) -> str:
    """Counts, changed and rejected files, and warnings of an ingest."""
    lines = [
        f"{report.archive}: {report.new_images} new images, {report.images} in all, digest {report.digest[:12]}",
        f"files: {report.taken} taken, {report.known} known, {len(report.changed)} changed, {len(report.rejected)} "
        f"rejected, {report.attached} masks and tables",
    ]
    if report.skipped_shards:
        lines.append(f"{report.skipped_shards} shards were already done")
    if report.removed_shards:
        lines.append(f"{report.removed_shards} shards of interrupted ingests were removed; the archive has their files")
    if report.changed:
        lines.append(f"{len(report.changed)} files have other content than before, which became new rows:")
        lines += [f"  {uri}" for uri in report.changed[:LISTED]]
        if len(report.changed) > LISTED:
            lines.append(f"  ... and {len(report.changed) - LISTED} more; --json lists them")
    if report.rejected:
        lines.append(f"{len(report.rejected)} files were rejected:")
        lines += [f"  {entry.source_uri}: {entry.reason}" for entry in report.rejected[:LISTED]]
        if len(report.rejected) > LISTED:
            lines.append(f"  ... and {len(report.rejected) - LISTED} more; the manifest lists them")
    lines += [f"warning: {warning}" for warning in report.warnings]
    if report.is_all_rejected:
        lines.append("all files were rejected; fix them, or pass another SOURCE")
    return "\n".join(lines)
