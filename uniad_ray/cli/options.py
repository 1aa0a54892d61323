"""Options shared by several verbs, and the output of reports."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

CallableT = TypeVar("CallableT", bound=Callable[..., Any])


def comma_separated(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Callback that splits `NAME,...` into names; None if the option is not given."""
    return None if value is None else tuple(name.strip() for name in value.split(","))


address_option = click.option(
    "--address", help="Ray cluster to join, such as auto or HOST:6379.  [default: start Ray here]"
)
category_option = click.option("--category", "categories", multiple=True, help="Only this category; may be repeated.")
profile_option = click.option(
    "--profile", default="embedded", show_default=True, metavar="NAME|FILE", help="A profile, or a YAML file."
)
overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one option; may be repeated."
)
resamples_option = click.option(
    "--resamples",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Number of bootstrap resamples; 0 disables intervals.",
)
confidence_option = click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Confidence of the intervals.",
)
pixel_workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Ray tasks that count pixels; 1 counts in this process.  [default: by the number of images]",
)
marks_option = click.option(
    "--without-marks",
    "with_marks",
    flag_value=False,
    default=True,
    help="Ignore reviewers' marks and use the original labels.",
)
device_option = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
sidecar_option = click.option(
    "--sidecar", metavar="SIDECAR", help="Read what `uniad-ray precompute` stored for ARCHIVE instead of computing it."
)
bundles_option = click.option("--bundles", required=True, metavar="ROOT", help="Root of the bundles.")


def reporting(verb: CallableT) -> CallableT:
    """Adds the options of every verb that prints a report."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout instead of text.")
    @click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
    @functools.wraps(verb)
    def wrapped(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> Any:
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.WARNING,
            format="%(asctime)s %(levelname).1s %(message)s",
            datefmt="%H:%M:%S",
        )
        logging.getLogger("uniad_ray").setLevel(logging.WARNING if quiet else logging.INFO)
        return verb(*args, as_json=as_json, **kwargs)

    return wrapped  # type: ignore[return-value]


def print_report(report: BaseModel, as_json: bool, as_text: Callable[[Any], str]) -> None:
    """Prints a report on stdout, as one JSON document or as text."""
    if as_json:
        click.echo(json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False))
    else:
        click.echo(as_text(report))
