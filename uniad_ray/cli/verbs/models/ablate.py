"""`uniad-ray ablate`: fills in the papers' ablation tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from uniad_ray.cli.options import (
    address_option,
    category_option,
    device_option,
    overrides_option,
    print_report,
    profile_option,
    reporting,
)
from uniad_ray.cli.tables import percent
from uniad_ray.cli.tables import table as aligned

if TYPE_CHECKING:
    from uniad_ray.ablations.ablate import AblationReport

_KINDS = ("logical", "structural", "mean")


@click.command()
@click.argument("archive")
@click.option(
    "--paper",
    type=click.Choice(["uniad", "tmuad"]),
    default="uniad",
    show_default=True,
    help="Paper whose table to reproduce.",
)
@click.option(
    "--table",
    type=click.IntRange(4, 13),
    required=True,
    help="Table number: 4 to 9 of UniAD, 5 to 11 of TMUAD, 13 for its figure 13.",
)
@click.option("--work", required=True, metavar="ROOT", help="Root of the variants; variants fitted there are reused.")
@category_option
@profile_option
@overrides_option
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    default=("resnet18",),
    show_default=True,
    help="Student architecture, for UniAD's table 4; may be repeated.",
)
@click.option(
    "--captions",
    metavar="SIDECAR",
    help="Sidecar of `uniad-ray caption`, an absolute path or a URI, for UniAD's table 7 and TMUAD's table 6.",
)
@click.option(
    "--shots",
    default="1,2,4,8,16",
    show_default=True,
    metavar="N,N,...",
    help="Numbers of normal images, for TMUAD's table 10.",
)
@click.option("--draws", default=3, show_default=True, help="Random subsets of each size, for TMUAD's table 10.")
@click.option(
    "--clip-for-all", metavar="URI", help="A CLIP tuned on the objects of all categories, for TMUAD's table 11."
)
@click.option("--clip-for-each", metavar="URI", help="A CLIP for each category; {category} in URI stands for its name.")
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
    captions: str | None,
    shots: str,
    draws: int,
    clip_for_all: str | None,
    clip_for_each: str | None,
    device: str,
    address: str | None,
    as_json: bool,
) -> None:
    """Fill in an ablation table of UniAD or TMUAD on ARCHIVE, which needs labelled anomalies.

    UniAD: tables 4 to 6 train other students; 7, 8 and 9 fuse the evidence of one fit in other ways. TMUAD: 5 memory
    banks, 6 text matching, 7 text memory with other detectors (trains a student), 8 segmenter and object encoder,
    9 patch encoders, 10 few shots, 11 cost by bank size, 13 positions by a vision-language model or by the grid.
    """
    from uniad_ray.ablations.ablate import ablate as run
    from uniad_ray.ablations.tmuad import TmuadTableOptions
    from uniad_ray.config.loading import validate

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
        captions=captions,
        options=validate(TmuadTableOptions, options, where="the command line"),
        categories=categories,
        device=device,
        address=address,
    )
    print_report(report, as_json, as_text)


def as_text(report: AblationReport) -> str:
    """A filled ablation table: AUROC in per cent, times per image in milliseconds, and the size of the networks."""
    columns = list(report.rows[0].settings)
    header = [*columns, *_KINDS]
    rows: list[list[str]] = []
    for row in report.rows:
        cells = [row.settings[name] for name in columns]
        for kind in _KINDS:
            deviation = getattr(row.deviation, kind, None)
            cells.append(percent(getattr(row.image, kind)) + ("" if deviation is None else f" +- {percent(deviation)}"))
        rows.append(cells)
    if any(row.pixel for row in report.rows):
        header += [f"pixel {kind}" for kind in _KINDS]
        for row, cells in zip(report.rows, rows, strict=True):
            cells += [percent(getattr(row.pixel, kind, None)) for kind in _KINDS]
    stages: dict[str, float] = {}
    if any(row.milliseconds for row in report.rows):
        header += ["ms per image", "images per second"]
        for row, cells in zip(report.rows, rows, strict=True):
            total = sum((row.milliseconds or {}).values())
            cells += [f"{total:.1f}", f"{1000 / total:.1f}"] if total else ["-", "-"]
            stages |= row.milliseconds or {}
    if any(row.parameters is not None for row in report.rows):
        header += ["million parameters", "GFLOPs per image"]
        for row, cells in zip(report.rows, rows, strict=True):
            cells += [f"{(row.parameters or 0) / 1e6:.1f}", f"{(row.flops or 0) / 1e9:.1f}"]
    title = {"uniad": "UniAD", "tmuad": "TMUAD"}[report.paper]
    lines = [
        f"{title}, table {report.table}: {report.title}; image AUROC, {', '.join(report.categories)}",
        aligned(header, rows),
    ]
    if stages:
        lines.append(aligned(("stage", "ms per image"), [(name, f"{value:.2f}") for name, value in stages.items()]))
    if report.random_weights:
        lines.append("note: a network had random weights; the metrics are meaningless")
    lines.append(f"{report.path}: the table")
    return "\n".join(lines)
