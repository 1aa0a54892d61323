"""The verbs that make and show archives."""

from __future__ import annotations

from typing import Any

import click

from uniad_ray.archive.layout_names import LAYOUT_NAMES
from uniad_ray.cli.options import address_option, print_report, reporting


@click.command()
@click.argument("dest")
@click.option("--category", default="trays", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--image-size", type=int, default=256, show_default=True, help="Side of the images, pixels.")
@click.option("--train", type=int, default=80, show_default=True, help="Normal images to fit on.")
@click.option("--validation", type=int, default=0, show_default=True, help="Normal images in LOCO's validation split.")
@click.option("--test-good", type=int, default=40, show_default=True, help="Normal images in the test split.")
@click.option("--logical", type=int, default=40, show_default=True, help="Logical anomalies.")
@click.option("--structural", type=int, default=40, show_default=True, help="Structural anomalies.")
@reporting
def scenes(dest: str, as_json: bool, **options: Any) -> None:
    """Draw a synthetic category of trays with logical and structural anomalies into DEST."""
    from uniad_ray import text
    from uniad_ray.archive.scenes import SceneConfig
    from uniad_ray.config.loading import validate
    from uniad_ray.pipelines.scenes import write_scenes

    config = validate(SceneConfig, options, where="the command line")
    print_report(write_scenes(dest, config), as_json, text.drawn)


@click.command()
@click.argument("source")
@click.argument("archive")
@click.option("--category", help="Name of the category, or the one to take of a tree that holds several.")
@click.option("--layout", type=click.Choice(LAYOUT_NAMES), default="auto", show_default=True)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "archive"]),
    help="Split of a plain folder.  [default: archive]",
)
@click.option(
    "--label", type=click.Choice(["normal", "anomalous"]), help="Label of a plain folder.  [default: unknown]"
)
@click.option("--shard-images", type=click.IntRange(1), default=1024, show_default=True, help="Most images in a shard.")
@click.option("--shard-mib", type=click.IntRange(1, 2048), default=128, show_default=True, help="Most MiB in a shard.")
@click.option(
    "--chunk-images", type=click.IntRange(1, 64), default=64, show_default=True, help="Most images in a row group."
)
@address_option
@reporting
def ingest(
    source: str,
    archive: str,
    category: str | None,
    layout: Any,
    split: Any,
    label: Any,
    shard_images: int,
    shard_mib: int,
    chunk_images: int,
    address: str | None,
    as_json: bool,
) -> None:
    """Read the images of SOURCE into the Parquet shards of ARCHIVE.

    SOURCE is an MVTec-style tree (MVTec AD, LOCO, MPDD, BTAD), VisA, MVTec AD 2, one of BMAD's sets, or any folder or
    prefix of images; docs/layouts.md shows them. Run again after a break it goes on; run again later it adds what is
    new.
    """
    from uniad_ray import text
    from uniad_ray.archive.shards import ShardLimits
    from uniad_ray.pipelines.ingest import ingest as run

    limits = ShardLimits(rows=shard_images, bytes=shard_mib << 20, row_group_rows=chunk_images)
    report = run(
        source, archive, category=category, layout=layout, split=split, label=label, limits=limits, address=address
    )
    print_report(report, as_json, text.ingested)


@click.command()
@click.argument("archive")
@reporting
def inspect(archive: str, as_json: bool) -> None:
    """Show what ARCHIVE holds."""
    from uniad_ray import text
    from uniad_ray.archive.manifest import read_manifest
    from uniad_ray.archive.object_store import Location

    print_report(read_manifest(Location.parse(archive)), as_json, text.archive_contents)
