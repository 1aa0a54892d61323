"""`uniad-ray scenes`: draws a synthetic category for demos and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from uniad_ray.cli.options import print_report, reporting

if TYPE_CHECKING:
    from uniad_ray.archive.scenes.writing import ScenesReport


@click.command()
@click.argument("dest")
@click.option("--category", default="trays", show_default=True, help="Name of the category.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the drawing.")
@click.option("--image-size", type=int, default=256, show_default=True, help="Side of the images, pixels.")
@click.option("--train", type=int, default=80, show_default=True, help="Normal images to fit on.")
@click.option("--validation", type=int, default=0, show_default=True, help="Normal images in LOCO's validation split.")
@click.option("--test-good", type=int, default=40, show_default=True, help="Normal images in the test split.")
@click.option("--logical", type=int, default=40, show_default=True, help="Logical anomalies.")
@click.option("--structural", type=int, default=40, show_default=True, help="Structural anomalies.")
@reporting
def scenes(dest: str, as_json: bool, **options: Any) -> None:
    """Draw a synthetic category of trays with logical and structural anomalies into DEST."""
    from uniad_ray.archive.scenes import SceneConfig
    from uniad_ray.archive.scenes.writing import write_scenes
    from uniad_ray.config.loading import validate

    config = validate(SceneConfig, options, where="the command line")
    print_report(write_scenes(dest, config), as_json, as_text)


def as_text(report: ScenesReport) -> str:
    """Number and place of the files."""
    return f"{report.destination}: {report.files} files of category {report.category}"
