"""The verb that tunes the CLIP that names objects."""

from __future__ import annotations

import click

from uniad_ray.cli.options import (
    address_option,
    category_option,
    device_option,
    overrides_option,
    print_report,
    profile_option,
    reporting,
    sidecar_option,
)


@click.command()
@click.argument("archive", required=False)
@click.option(
    "--out",
    required=True,
    metavar="FOLDER",
    help="Where the CLIP goes, on a disk that all machines mount; with --each, {category} in it.",
)
@click.option(
    "--crops", metavar="FOLDER", help="Crops that you have sorted, CLASS/image.png; they take the place of ARCHIVE."
)
@click.option("--each", is_flag=True, help="A CLIP for each category, in place of one for all.")
@click.option("--namer", metavar="NAME", help="Perceiver whose CLIP is tuned.  [default: the only one with classes]")
@category_option
@profile_option
@overrides_option
@sidecar_option
@click.option("--workers", type=click.IntRange(1), help="Processes that train.  [default: by the cluster]")
@click.option(
    "--checkpoints", metavar="ROOT", help="Where crops and trainings are kept, to go on.  [default: beside --out]"
)
@device_option
@address_option
@reporting
def tune_clip(
    archive: str | None,
    out: str,
    crops: str | None,
    each: bool,
    namer: str | None,
    categories: tuple[str, ...],
    profile: str,
    overrides: tuple[str, ...],
    sidecar: str | None,
    workers: int | None,
    checkpoints: str | None,
    device: str,
    address: str | None,
    as_json: bool,
) -> int:
    """Tune the CLIP that names objects on crops of the objects in ARCHIVE's normal images.

    FOLDER is a CLIP as transformers saves it, for `weights.uri` of the namer and of its vectors. Killed at any moment
    and given again, the command goes on. Where a category fails with --each, the exit code is 1.
    """
    from uniad_ray import text
    from uniad_ray.config.loading import load_config
    from uniad_ray.pipelines.tune_clip import tune_clip as run

    report = run(
        archive,
        out,
        load_config(profile, overrides),
        crops=crops,
        each=each,
        namer=namer,
        categories=categories,
        sidecar=sidecar,
        device=device,
        workers=workers,
        checkpoints=checkpoints,
        address=address,
    )
    print_report(report, as_json, text.tuned)
    return 1 if report.failed else 0
