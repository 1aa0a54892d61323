"""The verbs that make, list and take apart bundles."""

from __future__ import annotations

import click

from uniad_ray.cli.options import (
    address_option,
    bundles_option,
    category_option,
    device_option,
    overrides_option,
    print_report,
    profile_option,
    reporting,
    sidecar_option,
)


@click.command()
@click.argument("archive")
@bundles_option
@category_option
@profile_option
@overrides_option
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
    from uniad_ray.pipelines.fit import fit as run

    config = load_config(profile, overrides)
    where = f"profile {profile}" + (" with --set" if overrides else "")
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
@click.option("--table", type=click.IntRange(4, 9), required=True, help="Number of the table in the UniAD paper.")
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
    help="Another architecture of the student, for table 4; may be repeated.",
)
@device_option
@address_option
@reporting
def ablate(
    archive: str,
    table: int,
    work: str,
    categories: tuple[str, ...],
    profile: str,
    overrides: tuple[str, ...],
    backbones: tuple[str, ...],
    device: str,
    address: str | None,
    as_json: bool,
) -> None:
    """Fill in an ablation table of UniAD on ARCHIVE, whose anomalies need labels.

    Tables 4 to 6 train other students; 7, 8 and 9 fuse the evidence of one fit in other ways.
    """
    from uniad_ray import text
    from uniad_ray.pipelines.ablate import ablate as run

    report = run(
        archive,
        work,
        table,
        profile=profile,
        overrides=overrides,
        backbones=backbones,
        categories=categories,
        device=device,
        address=address,
    )
    print_report(report, as_json, text.ablated)
