"""`uniad-ray nightly`: runs the next night."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from uniad_ray import verbs
from uniad_ray.cli.options import print_report, reporting

if TYPE_CHECKING:
    from uniad_ray.nights.model import Expired, NightReport, NightSummary

EXIT_ALARM = 3


@click.command()
@click.option("--config", required=True, metavar="FILE", help="YAML file of the nights; docs/nightly.md shows one.")
@click.option("--night", metavar="NAME", help="Name of the night, at most once each.  [default: its date]")
@click.option("--dry-run", is_flag=True, help="Show what would be sent and deleted; the next call does it.")
@reporting
def nightly(as_json: bool, **options: Any) -> int:
    """Ingest what is new, caption it if configured, score it, look for drift, report, and raise alarms.

    After a crash, the same command goes on. The exit code is 0 for a quiet night, 3 for a night with alarms, and 1 if a
    message could not be delivered.
    """
    report = verbs.nightly(**options)
    print_report(report, as_json, as_text)
    return 1 if report.has_failed else EXIT_ALARM if report.has_alarms else 0


def as_text(report: NightReport) -> str:
    """The nights with their alarms, and the messages."""
    lines = [line for night in report.nights for line in _night(night)]
    lines += [report.skipped] if report.skipped else []
    for delivery in report.deliveries:
        indented = delivery.detail.replace("\n", "\n    ")
        lines.append(f"{delivery.night}: {delivery.channel}: {delivery.result}: {indented}")
    lines += [_expired(entry, report.dry_run) for entry in report.expired]
    if report.dry_run:
        lines.append("dry run: nothing was sent or deleted; the same command without --dry-run does it")
    if report.overview:
        lines.append(f"{report.overview}: the last nights")
    return "\n".join(lines)


def _expired(entry: Expired, dry_run: bool) -> str:
    what = f"{entry.images} images" if entry.kind == "images" else entry.kind
    of_night = f" of night {entry.night}" if entry.night else ""
    return f"{'would delete' if dry_run else 'deleted'} {what}{of_night}: {entry.place} ({entry.reason})"


def _night(night: NightSummary) -> Iterator[str]:
    review = f"{night.in_review} for review, " if night.in_review else ""
    yield (
        f"night {night.night}: {night.images} new images, {night.anomalous} anomalous, {review}{night.errors} errors, "
        f"{night.rejected_files} rejected files"
    )
    if night.captions is not None:
        yield f"  captions: {night.captions.captioned} of {night.captions.images} new images have one"
    yield from (f"  alarm {alarm.kind}: {alarm.text}" for alarm in night.alarms)
    yield from (f"  note: {note}" for note in night.notes)
