"""`uniad-ray caption`: captions by a vision-language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from uniad_ray import verbs
from uniad_ray.cli.options import (
    address_option,
    category_option,
    comma_separated,
    print_report,
    reporting,
)

if TYPE_CHECKING:
    from uniad_ray.pipelines.caption.job import CaptionReport


@click.command()
@click.argument("archive")
@click.option(
    "--out",
    required=True,
    metavar="SIDECAR",
    help="Root of the captions; the same SIDECAR again resumes after a crash.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "ray", "vllm", "server", "none"]),
    default="auto",
    show_default=True,
    help="vLLM through Ray Data, vLLM in an actor, or an OpenAI-compatible server. `auto` takes the server if there is "
    "--url, else Ray Data with a GPU, else an actor.",
)
@click.option("--model", metavar="NAME|FOLDER", help="Name of the model on the server, or its folder: a path or a URI.")
@click.option("--url", metavar="URL", help="Base URL of the server, such as http://gpu-1:8001/v1.")
@click.option(
    "--prompt",
    default="free",
    show_default=True,
    metavar="free|structured|TEXT",
    help="UniAD's prompt; TMUAD's prompt with --classes and a structured answer; or your own.",
)
@click.option(
    "--classes", metavar="NAME,...", callback=comma_separated, help="Classes of objects for the structured prompt."
)
@click.option(
    "--set", "options", multiple=True, metavar="KEY=VALUE", help="Set an option of the engine, such as max_tokens=256."
)
@category_option
@click.option(
    "--retry-errors", is_flag=True, help="Ask about all images without a caption, also if they were asked about."
)
@click.option("--workers", type=click.IntRange(1), help="Actors that caption.  [default: by the cluster]")
@address_option
@reporting
def caption(as_json: bool, **options: Any) -> None:
    """Ask a vision-language model about every image of ARCHIVE once, for any number of fits and runs.

    Profiles read the captions with `captioner: {kind: table, source: SIDECAR}`; fits and runs then need no model. An
    image without a caption costs one row.
    """
    print_report(verbs.caption(**options), as_json, as_text)


def as_text(report: CaptionReport) -> str:
    """Counts of captions, errors and tokens."""
    failed = sum(report.errors.values())
    lines = []
    if report.skipped_chunks:
        lines.append(f"{report.skipped_chunks} chunks were already done")
    for kind, count in report.errors.items():
        lines.append(f"{count} images without a caption: {kind}")
    if failed:
        lines.append("ask again with --retry-errors")
    tokens = f"{report.prompt_tokens} tokens read, {report.tokens} written"
    lines.append(f"{report.sidecar}: {report.images - failed} of {report.images} images captioned, {tokens}")
    return "\n".join(lines)
