"""The verb that computes ahead what fits and runs need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click
from click.core import ParameterSource

from uniad_ray.cli.options import (
    address_option,
    category_option,
    overrides_option,
    print_report,
    profile_option,
    reporting,
)
from uniad_ray.errors import ConfigError

if TYPE_CHECKING:
    from uniad_ray.perception.field_rows import Stage

ValueT = TypeVar("ValueT")


@click.command()
@click.argument("archive")
@click.option(
    "--out",
    required=True,
    metavar="SIDECAR",
    help="Where the sidecar goes; the same SIDECAR again goes on after a break.",
)
@click.option(
    "--stages",
    metavar="NAME,...",
    help="Of features, segments and descriptions.  [default: those that can be computed]",
)
@click.option(
    "--bundles",
    metavar="ROOT",
    help="Published bundles, for what is learned from normal images; they take the place of --profile and --set.",
)
@category_option
@profile_option
@overrides_option
@click.option(
    "--workers", multiple=True, metavar="[STAGE=]N", help="Actors of every stage, or of one.  [default: by the cluster]"
)
@click.option("--threads", multiple=True, metavar="[STAGE=]N", help="Threads of an actor.  [default: 1]")
@click.option(
    "--device", multiple=True, metavar="[STAGE=]auto|cpu|cuda", help="Of every stage, or of one.  [default: auto]"
)
@address_option
@reporting
def annotate(
    archive: str,
    out: str,
    stages: str | None,
    bundles: str | None,
    categories: tuple[str, ...],
    profile: str,
    overrides: tuple[str, ...],
    workers: tuple[str, ...],
    threads: tuple[str, ...],
    device: tuple[str, ...],
    address: str | None,
    as_json: bool,
) -> None:
    """Compute features, segments and descriptions of ARCHIVE once, for any number of fits and runs.

    `fit` and `score` with --sidecar SIDECAR read them, and have the same results as without. Killed at any moment and
    given again, the command computes what is missing.
    """
    from uniad_ray import text
    from uniad_ray.config.loading import load_config
    from uniad_ray.perception.field_rows import STAGES, check_stage
    from uniad_ray.pipelines.annotate import annotate as run
    from uniad_ray.pipelines.sizing import Workers

    is_default = click.get_current_context().get_parameter_source("profile") is ParameterSource.DEFAULT
    if bundles is not None and (overrides or not is_default):
        raise ConfigError("--bundles have a configuration of their own; leave --profile and --set out, or --bundles")
    counts, limits = _by_stage("--workers", workers, _number), _by_stage("--threads", threads, _number)
    devices = _by_stage("--device", device, _device)
    report = run(
        archive,
        out,
        load_config(profile, overrides),
        bundles=bundles,
        stages=None if stages is None else [check_stage(name.strip()) for name in stages.split(",")],
        categories=categories,
        workers={stage: Workers(counts.get(stage), limits.get(stage), devices.get(stage, "auto")) for stage in STAGES},
        address=address,
    )
    print_report(report, as_json, text.annotated)


def _by_stage(option: str, values: Sequence[str], convert: Callable[[str], ValueT]) -> dict[Stage, ValueT]:
    """Reads values such as `2` and `segments=4`; one for a single stage counts more."""
    from uniad_ray.perception.field_rows import STAGES, check_stage

    found: dict[Stage, ValueT] = {}
    for value in sorted(values, key=lambda value: "=" in value):
        stage, is_single, rest = value.rpartition("=")
        try:
            found |= dict.fromkeys([check_stage(stage)] if is_single else STAGES, convert(rest))
        except ValueError as error:
            raise ConfigError(f"{option} {value}: {error}") from error
    return found


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("write a number from 1, or STAGE=NUMBER")
    return int(text)


def _device(text: str) -> str:
    if text not in ("auto", "cpu", "cuda"):
        raise ValueError("write auto, cpu or cuda, or STAGE=auto and so on")
    return text
