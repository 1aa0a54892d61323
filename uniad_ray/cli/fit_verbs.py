"""The verbs that make, list and take apart bundles."""

from __future__ import annotations

from typing import Literal

import click

from uniad_ray.cli.options import (
    address_option,
    bundles_option,
    category_option,
    device_option,
    overrides_option,
    print_report,
    profile_option,
    profile_origin,
    reporting,
    sidecar_option,
)


@click.command()
@click.argument("archive")
@bundles_option
@category_option
@profile_option
@overrides_option
@click.option(
    "--names",
    metavar="FILE",
    help="A YAML file with better names for classes of objects, such as `part-1: bolt`, for reasons.",
)
@sidecar_option
@click.option("--publish/--no-publish", default=True, show_default=True, help="Publish what was fitted and verified.")
@click.option("--accept-unusual", is_flag=True, help="Publish even if some normal images do not look like the others.")
@click.option("--workers", type=click.IntRange(1), help="Processes that train students.  [default: by the cluster]")
@click.option(
    "--checkpoints",
    metavar="ROOT",
    help="Where trainings are kept, to go on after a break.  [default: below --bundles]",
)
@device_option
@address_option
@reporting
def fit(
    archive: str,
    bundles: str,
    categories: tuple[str, ...],
    profile: str,
    overrides: tuple[str, ...],
    names: str | None,
    sidecar: str | None,
    publish: bool,
    accept_unusual: bool,
    workers: int | None,
    checkpoints: str | None,
    device: str,
    address: str | None,
    as_json: bool,
) -> int:
    """Fit a bundle for each category of ARCHIVE on its normal images.

    Where some normal images do not look like the others, the bundle is written but not published, the images are
    named, and the exit code is 1.
    """
    from uniad_ray import text
    from uniad_ray.config.loading import load_config
    from uniad_ray.perception.object_names import names_override
    from uniad_ray.pipelines.fit import fit as run

    config = load_config(profile, [*overrides, *([] if names is None else [names_override(names)])])
    where = profile_origin(profile, overrides) + (f" with {names}" if names else "")
    report = run(
        archive,
        bundles,
        config,
        categories=categories,
        where=where,
        sidecar=sidecar,
        publish=publish,
        accept_unusual=accept_unusual,
        device=device,
        workers=workers,
        checkpoints=checkpoints,
        address=address,
    )
    print_report(report, as_json, text.fitted)
    return 1 if report.failed or any(entry.unusual and not entry.published for entry in report.fitted) else 0


@click.command()
@click.argument("root")
@click.option("--publish", nargs=2, metavar="CATEGORY VERSION", help="Make this version the one that scores CATEGORY.")
@reporting
def bundles(root: str, publish: tuple[str, str] | None, as_json: bool) -> None:
    """List the bundles of ROOT, or publish a version, newer or older."""
    from uniad_ray import text
    from uniad_ray.pipelines.bundles import list_bundles, publish_bundle

    if publish is not None:
        publish_bundle(root, *publish)
    print_report(list_bundles(root), as_json, text.bundle_list)


@click.command()
@click.argument("archive")
@click.option("--paper", type=click.Choice(["uniad", "tmuad"]), default="uniad", show_default=True, help="Whose table.")
@click.option(
    "--table", type=click.IntRange(4, 11), required=True, help="Its number: 4 to 9 of UniAD, 5 to 11 of TMUAD."
)
@click.option(
    "--work", required=True, metavar="ROOT", help="Where variants are kept; given again, none is fitted twice."
)
@category_option
@profile_option
@overrides_option
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    default=("resnet18",),
    show_default=True,
    help="Another architecture of the student, for UniAD's table 4; may be repeated.",
)
@click.option(
    "--shots",
    default="1,2,4,8,16",
    show_default=True,
    metavar="N,N,...",
    help="Numbers of normal images, for TMUAD's table 10.",
)
@click.option("--draws", default=3, show_default=True, help="How often so many are drawn, for TMUAD's table 10.")
@click.option(
    "--clip-for-all", metavar="URI", help="A CLIP tuned on the objects of all categories, for TMUAD's table 11."
)
@click.option(
    "--clip-for-each", metavar="URI", help="The same for each category, which takes the place of {category} in URI."
)
@device_option
@address_option
@reporting
def ablate(
    archive: str,
    paper: Literal["uniad", "tmuad"],
    table: int,
    work: str,
    categories: tuple[str, ...],
    profile: str,
    overrides: tuple[str, ...],
    backbones: tuple[str, ...],
    shots: str,
    draws: int,
    clip_for_all: str | None,
    clip_for_each: str | None,
    device: str,
    address: str | None,
    as_json: bool,
) -> None:
    """Fill in an ablation table of UniAD or TMUAD on ARCHIVE, whose anomalies need labels.

    UniAD: tables 4 to 6 train other students; 7, 8 and 9 fuse the evidence of one fit in other ways. TMUAD: 5 memory
    banks, 6 matching of texts, 7 the text memory beside other detectors (trains a student), 8 segmenter and encoder of
    objects, 9 encoders of patches, 10 few shots, 11 cost by the size of the bank.
    """
    from uniad_ray import text
    from uniad_ray.config.loading import validate
    from uniad_ray.pipelines.ablate import ablate as run
    from uniad_ray.pipelines.tmuad_ablations import TmuadTableOptions

    options = {
        "shots": shots.split(","),
        "draws": draws,
        "clip_for_all": clip_for_all,
        "clip_for_each": clip_for_each,
    }
    report = run(
        archive,
        work,
        table,
        paper=paper,
        profile=profile,
        overrides=overrides,
        backbones=backbones,
        options=validate(TmuadTableOptions, options, where="the command line"),
        categories=categories,
        device=device,
        address=address,
    )
    print_report(report, as_json, text.ablated)
