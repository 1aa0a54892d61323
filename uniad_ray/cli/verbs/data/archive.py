"""`uniad-ray archive`: leaves images of an archive out of every fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from uniad_ray.cli.options import print_report, reporting
from uniad_ray.cli.tables import table

if TYPE_CHECKING:
    from uniad_ray.archive.exclusions import ExclusionReport


@click.command()
@click.argument("action", type=click.Choice(["exclude", "include", "list"]))
@click.argument("archive_root", metavar="ARCHIVE")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--reason", default="", help="Why; required with exclude.")
@reporting
def archive(
    action: Literal["exclude", "include", "list"],
    archive_root: str,
    images: tuple[str, ...],
    reason: str,
    as_json: bool,
) -> None:
    """Leave images of ARCHIVE out of every fit (exclude), use them again (include), or list them.

    IMAGE is a source URI, or the end of it such as good/007.png. The images stay in the archive and are still scored.
    """
    from uniad_ray.archive.exclusions import exclude_images, include_images, list_exclusions

    if (action == "list") == bool(images):
        raise click.UsageError("name the images" if not images else "list takes no images")
    if action == "exclude":
        report = exclude_images(archive_root, images, reason=reason)
    elif action == "include":
        report = include_images(archive_root, images, reason=reason)
    else:
        report = list_exclusions(archive_root)
    print_report(report, as_json, as_text)


def as_text(report: ExclusionReport) -> str:
    """The changes, and the exclusions in force."""
    lines = [f"{'excluded' if entry.is_excluded else 'included'} {entry.source_uri}" for entry in report.changed]
    rows = [(entry.category, entry.source_uri, entry.reason) for entry in report.excluded]
    if rows:
        lines.append(table(("category", "image", "reason"), rows))
    lines.append(f"{report.archive}: {len(rows)} images are left out of every fit")
    return "\n".join(lines)
