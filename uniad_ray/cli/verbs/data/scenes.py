"""`uniad-ray scenes`: draws a synthetic category for demos and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from uniad_ray.cli.options import print_report, reporting

if TYPE_CHECKING:
    from uniad_ray.archive.scenes.writing import ScenesReport


@click.command()
@click.argument("dest")
@click.option("--product", type=click.IntRange(0), help="Draw the product of this seed instead of trays.")
@click.option("--category", help="Name of the category.  [default: trays, or product-SEED]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the trays.")
@click.option(
    "--image-size",
    type=int,
    help="Longest side of the images, pixels.  [default: trays 256; a product's own, 320 to 1000]",
)
@click.option(
    "--flaw-share",
    type=float,
    nargs=2,
    metavar="LOW HIGH",
    help="Sizes of a product's structural anomalies, as fractions of the image.  [default: 0.0011 to 0.02]",
)
@click.option("--train", type=int, default=80, show_default=True, help="Normal images to fit on.")
@click.option("--validation", type=int, default=0, show_default=True, help="Normal images in LOCO's validation split.")
@click.option("--test-good", type=int, default=40, show_default=True, help="Normal images in the test split.")
@click.option("--logical", type=int, default=40, show_default=True, help="Logical anomalies.")
@click.option("--structural", type=int, default=40, show_default=True, help="Structural anomalies.")
@reporting
@click.pass_context
def scenes(context: click.Context, /, dest: str, as_json: bool, product: int | None, **options: Any) -> None:
    """Draw a synthetic category with logical and structural anomalies into DEST.

    The category is trays, or with --product a product that its seed draws.
    """
    from uniad_ray.archive.scenes import SceneConfig
    from uniad_ray.archive.scenes.products.dataset import ProductConfig
    from uniad_ray.archive.scenes.writing import write_scenes
    from uniad_ray.config.loading import validate
    from uniad_ray.errors import ConfigError

    config: SceneConfig | ProductConfig
    given = {name: value for name, value in options.items() if value is not None}
    if product is None:
        if "flaw_share" in given:
            raise ConfigError("--flaw-share is for products: add --product SEED, or omit --flaw-share")
        config = validate(SceneConfig, {"category": "trays", **given}, where="the command line")
    else:
        if context.get_parameter_source("seed") is ParameterSource.COMMANDLINE:
            raise ConfigError("--seed is for trays; --product draws everything from its own seed: omit --seed")
        del given["seed"]
        named = {"category": f"product-{product}", "product": product, **given}
        config = validate(ProductConfig, named, where="the command line")
    print_report(write_scenes(dest, config), as_json, as_text)


def as_text(report: ScenesReport) -> str:
    """Number and place of the files."""
    return f"{report.destination}: {report.files} files of category {report.category}"
