"""`uniad-ray tune-clip`: tunes the CLIP that names objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from uniad_ray.cli.tables import percent, table

if TYPE_CHECKING:
    from uniad_ray.pipelines.tune_clip.job import TuneReport


@click.command()
@click.argument("archive", required=False)
@click.option(
    "--out",
    required=True,
    metavar="FOLDER",
    help="Folder of the CLIP, on a disk that all machines mount; with --each, {category} in it.",
)
@click.option("--crops", metavar="FOLDER", help="Crops sorted by class, as CLASS/image.png; they replace ARCHIVE.")
@click.option("--each", is_flag=True, help="Tune one CLIP per category instead of one for all.")
@click.option("--namer", metavar="NAME", help="Extractor whose CLIP is tuned.  [default: the only one with classes]")
@category_option
@profile_option
@overrides_option
@sidecar_option
@click.option("--workers", type=click.IntRange(1), help="Processes that train.  [default: by the cluster]")
@click.option("--checkpoints", metavar="ROOT", help="Root of crops and checkpoints.  [default: next to --out]")
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

    FOLDER is a CLIP as transformers saves it, for `weights.uri` of the namer and of its vectors. After a crash, the
    same command resumes. If a category fails with --each, the exit code is 1.
    """
    from uniad_ray.config.loading import load_config
    from uniad_ray.pipelines.tune_clip.job import tune_clip as run

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
    print_report(report, as_json, as_text)
    return 1 if report.failed else 0


def as_text(report: TuneReport) -> str:
    """The tuned CLIPs."""
    rows = [
        (
            entry.category or "all",
            entry.crops,
            entry.held_out,
            percent(entry.accuracy_before),
            percent(entry.accuracy_after),
            f"{entry.epoch} of {entry.epochs}",
        )
        for entry in report.tuned
    ]
    lines = [f"CLIP of {report.namer}, labels of {report.labels}"]
    if rows:
        header = ("category", "crops", "held out", "accuracy before, %", "accuracy after, %", "epoch")
        lines.append(table(header, rows))
    for entry in report.tuned:
        if entry.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(entry.left_out.items()))
            lines.append(f"{entry.category or 'all'}: objects left out: {reasons}")
        if not entry.epoch:
            lines.append(f"{entry.category or 'all'}: no epoch was better on held-out crops; the CLIP is unchanged")
        lines.append(f"{entry.uri}, sha256 {entry.sha256}")
    lines += [f"failed: {name}: {reason}" for name, reason in report.failed.items()]
    return "\n".join(lines)
