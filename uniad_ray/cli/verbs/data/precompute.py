"""`uniad-ray precompute`: computes the input of fits and runs once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from uniad_ray import verbs
from uniad_ray.cli.options import (
    address_option,
    category_option,
    comma_separated,
    overrides_option,
    print_report,
    reporting,
)
from uniad_ray.cli.tables import mib, table
from uniad_ray.errors import ConfigError

if TYPE_CHECKING:
    from uniad_ray.pipelines.precompute.job import PrecomputeReport
    from uniad_ray.sidecars.encoding import Stage

ValueT = TypeVar("ValueT")


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("write a number from 1, or STAGE=NUMBER")
    return int(text)


def _device(text: str) -> str:
    if text not in ("auto", "cpu", "cuda"):
        raise ValueError("write auto, cpu or cuda, or STAGE=auto and so on")
    return text


def _by_stage(
    convert: Callable[[str], ValueT], default: ValueT | None = None
) -> Callable[[click.Context, click.Parameter, Sequence[str]], dict[Stage, ValueT] | ValueT | None]:
    """A callback that reads values such as `2` and `segments=4`; a value for one stage takes precedence."""

    def read(
        _context: click.Context, parameter: click.Parameter, values: Sequence[str]
    ) -> dict[Stage, ValueT] | ValueT | None:
        if not values:
            return default
        from uniad_ray.sidecars.encoding import STAGES, check_stage

        found: dict[Stage, ValueT] = {}
        for value in sorted(values, key=lambda value: "=" in value):
            stage, is_single, rest = value.rpartition("=")
            try:
                found |= dict.fromkeys([check_stage(stage)] if is_single else STAGES, convert(rest))
            except ValueError as error:
                raise ConfigError(f"{parameter.opts[0]} {value}: {error}") from error
        return found

    return read


@click.command()
@click.argument("archive")
@click.option(
    "--out", required=True, metavar="SIDECAR", help="Root of the sidecar; the same SIDECAR again resumes after a crash."
)
@click.option(
    "--stages",
    metavar="NAME,...",
    callback=comma_separated,
    help="Of features, segments, captions and descriptions.  [default: all that can be computed]",
)
@click.option(
    "--bundles",
    metavar="ROOT",
    help="Published bundles. Their configuration and what they learned replace --profile and --set.",
)
@category_option
@click.option("--profile", metavar="NAME|FILE", help="A profile, or a YAML file.  [default: embedded]")
@overrides_option
@click.option(
    "--workers",
    multiple=True,
    metavar="[STAGE=]N",
    callback=_by_stage(_number),
    help="Actors of every stage, or of one.  [default: by the cluster]",
)
@click.option(
    "--threads",
    multiple=True,
    metavar="[STAGE=]N",
    callback=_by_stage(_number),
    help="Threads of an actor.  [default: 1]",
)
@click.option(
    "--device",
    multiple=True,
    metavar="[STAGE=]auto|cpu|cuda",
    callback=_by_stage(_device, "auto"),
    help="Device of every stage, or of one.  [default: auto]",
)
@address_option
@reporting
def precompute(as_json: bool, **options: Any) -> None:
    """Compute features, segments, captions and descriptions of ARCHIVE once, for any number of fits and runs.

    `fit` and `score` with --sidecar SIDECAR read them and give the same results as without. After a crash, the same
    command resumes.
    """
    print_report(verbs.precompute(**options), as_json, as_text)


def as_text(report: PrecomputeReport) -> str:
    """Stored fields, and counts."""
    rows = [
        (category, stage, ", ".join(names))
        for category, stages in report.fields.items()
        for stage, names in stages.items()
    ]
    lines = [table(("category", "stage", "fields"), rows)]
    if report.skipped_files:
        lines.append(f"{report.skipped_files} files were already done")
    lines.append(f"{report.sidecar}: {report.images} images, {report.errors} undecodable, {mib(report.bytes)}")
    return "\n".join(lines)
