"""`uniad-ray doctor`: checks whether machine, cluster and stores can do the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from uniad_ray.cli.options import (
    address_option,
    device_option,
    overrides_option,
    print_report,
    profile_option,
    reporting,
)

if TYPE_CHECKING:
    from uniad_ray.pipelines.doctor import DoctorReport

_SIGNS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@click.command()
@click.option(
    "--store",
    "stores",
    multiple=True,
    metavar="URI",
    help="Folder or prefix to read and write: a small object is written and deleted. May be repeated.",
)
@click.option(
    "--source", "sources", multiple=True, metavar="URI", help="Folder or prefix to read only. May be repeated."
)
@profile_option
@overrides_option
@device_option
@address_option
@reporting
def doctor(as_json: bool, **options: Any) -> int:
    """Check whether this machine, cluster and bucket can do the work.

    Checks versions, memory, disk, GPU, the start of Ray or each node of a cluster, the weights of the profile, and for
    every store credentials, reading, writing and the clock. Says what to do about what fails; then the exit code is 1.
    """
    from uniad_ray.pipelines.doctor import doctor as run

    report = run(**options)
    print_report(report, as_json, as_text)
    return 1 if report.failures else 0


def as_text(report: DoctorReport) -> str:
    """One line a check, and what to do about each that is not ok."""
    lines = []
    for check in report.checks:
        place = f" ({check.where})" if check.where else ""
        lines.append(f"{_SIGNS[check.status]} {check.name}{place}: {check.found}")
        lines += [f"        -> {check.advice}"] if check.advice else []
    lines.append(f"{len(report.checks)} checks: {report.failures} failed, {report.warnings} warnings")
    return "\n".join(lines)
