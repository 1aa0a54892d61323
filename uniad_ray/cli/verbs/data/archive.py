"""`uniad-ray archive`: leaves images of an archive out of every fit, deletes them, or compacts the archive."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import click

from uniad_ray.cli.options import print_report, reporting
from uniad_ray.cli.tables import table

if TYPE_CHECKING:
    from uniad_ray.archive.compaction import CompactionReport
    from uniad_ray.archive.deletion import DeletionChoice, DeletionReport
    from uniad_ray.archive.exclusions import ExclusionReport

_LISTED = 20
"""Images of a category that a deletion lists; JSON has all."""


@click.command()
@click.argument("action", type=click.Choice(["exclude", "include", "list", "delete", "deletions", "compact"]))
@click.argument("archive_root", metavar="ARCHIVE")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--reason", default="", help="Why; required with exclude and delete.")
@click.option("--category", "categories", multiple=True, help="delete, compact: only this category; may be repeated.")
@click.option(
    "--where",
    "metadata",
    multiple=True,
    metavar="NAME=VALUE",
    help="delete: only images with this metadata, such as serial=A17 for a part; may be repeated.",
)
@click.option("--after", metavar="TIME", help="delete: only images captured at this date or time, or later.")
@click.option("--before", metavar="TIME", help="delete: only images captured before this date or time.")
@click.option(
    "--captions",
    multiple=True,
    metavar="SIDECAR",
    help="delete: delete their captions too, from this sidecar of `uniad-ray caption`; may be repeated.",
)
@click.option("--by", "deleted_by", metavar="NAME", help="delete: who deletes, for the record.  [default: your user]")
@click.option("--dry-run", is_flag=True, help="delete, compact: show what would change.")
@click.option("--yes", is_flag=True, help="delete: do not ask.")
@reporting
def archive(
    action: Literal["exclude", "include", "list", "delete", "deletions", "compact"],
    archive_root: str,
    images: tuple[str, ...],
    reason: str,
    categories: tuple[str, ...],
    metadata: tuple[str, ...],
    after: str | None,
    before: str | None,
    captions: tuple[str, ...],
    deleted_by: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Leave images of ARCHIVE out of every fit (exclude), use them again (include), or list them (list).

    Delete them for good (delete), or list what was deleted (deletions). Join small shards into larger ones (compact).

    IMAGE is a source URI, or the end of it such as good/007.png. Excluded images stay in the archive and are still
    scored. A deletion shows the images and asks first. Without images and conditions, it finishes what was interrupted.
    """
    if action == "compact":
        from uniad_ray.archive.compaction import compact

        if images or reason or any((metadata, after, before, captions, deleted_by, yes)):
            raise click.UsageError("compact takes only --category and --dry-run")
        print_report(compact(archive_root, categories=categories, dry_run=dry_run), as_json, compaction_as_text)
        return
    conditions = (categories, metadata, after, before, captions, deleted_by, dry_run, yes)
    if action != "delete" and any(conditions):
        raise click.UsageError(f"{action} takes only images and --reason")
    if action == "delete":
        from uniad_ray.archive.deletion import DeletionChoice, parse_metadata, parse_time

        choice = DeletionChoice(
            names=images,
            categories=categories,
            metadata=tuple(map(parse_metadata, metadata)),
            after=None if after is None else parse_time(after, "--after"),
            before=None if before is None else parse_time(before, "--before"),
        )
        _delete(archive_root, choice, captions, reason, deleted_by, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    if (action in ("list", "deletions")) == bool(images):
        raise click.UsageError("name the images" if not images else f"{action} takes no images")
    if action == "deletions":
        from uniad_ray.archive.deletion import list_deletions

        print_report(list_deletions(archive_root), as_json, deletions_as_text)
        return
    from uniad_ray.archive.exclusions import exclude_images, include_images, list_exclusions

    if action == "exclude":
        report = exclude_images(archive_root, images, reason=reason)
    elif action == "include":
        report = include_images(archive_root, images, reason=reason)
    else:
        report = list_exclusions(archive_root)
    print_report(report, as_json, as_text)


def _delete(
    archive_root: str,
    choice: DeletionChoice,
    captions: tuple[str, ...],
    reason: str,
    deleted_by: str | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Shows what would be deleted, asks unless told not to, and deletes."""
    from uniad_ray.archive.deletion import delete_images
    from uniad_ray.archive.stores.lease import user_name
    from uniad_ray.archive.stores.location import Location
    from uniad_ray.sidecars.caption_files import captions_of, delete_captions

    root, sidecars = Location.parse(archive_root), [Location.parse(sidecar) for sidecar in captions]
    for sidecar in sidecars:
        # A mistyped one is an error before anything is deleted.
        captions_of(sidecar, root)
    by = deleted_by or user_name()
    if not choice.is_empty and not reason.strip() and not dry_run:
        raise click.UsageError("say with --reason why the images are deleted")
    if dry_run or not (yes or choice.is_empty):
        planned = delete_images(archive_root, choice, deleted_by=by, reason=reason, dry_run=True)
        if dry_run or not (planned.images or captions):
            print_report(planned, as_json, deletion_as_text)
            return
        if planned.images:
            click.echo(deletion_as_text(planned), err=as_json)
            if not _is_interactive():
                raise click.UsageError("nothing is deleted; repeat the command with --yes")
            click.confirm(f"Delete {planned.images} images for good?", abort=True, err=True)
    report = delete_images(archive_root, choice, deleted_by=by, reason=reason)
    for sidecar in sidecars:
        removed = delete_captions(sidecar, root)
        click.echo(f"{sidecar}: deleted {removed} captions", err=True)
    print_report(report, as_json, deletion_as_text)


def _is_interactive() -> bool:
    return sys.stdin.isatty()


def as_text(report: ExclusionReport) -> str:
    """The changes, and the exclusions in force."""
    lines = [f"{'excluded' if entry.is_excluded else 'included'} {entry.source_uri}" for entry in report.changed]
    rows = [(entry.category, entry.source_uri, entry.reason) for entry in report.excluded]
    if rows:
        lines.append(table(("category", "image", "reason"), rows))
    lines.append(f"{report.archive}: {len(rows)} images are left out of every fit")
    return "\n".join(lines)


def deletion_as_text(report: DeletionReport) -> str:
    """The images that were deleted, or would be."""
    verb = "would delete" if report.is_dry_run else "deleted"
    lines = [f"{'would finish' if report.is_dry_run else 'finished'} deletion {name}" for name in report.resumed]
    for found in report.categories:
        lines += [f"{verb} {uri}" for uri in found.source_uris[:_LISTED]]
        if found.images > _LISTED:
            lines.append(f"{verb} {found.images - _LISTED} more of {found.category} (--json lists all)")
    if report.without_time:
        lines.append(f"{report.without_time} images have no capture time and stay")
    lines.append(
        f"{report.archive}: {verb} {report.images} images in {report.shards} shards; "
        f"{'holds' if report.is_dry_run else 'now holds'} {report.left}"
    )
    if report.images and not report.is_dry_run:
        lines.append(
            "Reports, sidecars and bundles that were made of them may still show them: write reports again, precompute "
            "again, and fit again"
        )
    return "\n".join(lines)


def deletions_as_text(report: DeletionReport) -> str:
    """The record of deletions."""
    rows = [(entry.requested_at[:19], str(entry.images), entry.deleted_by, entry.reason) for entry in report.deletions]
    lines = [table(("deleted at (UTC)", "images", "by", "reason"), rows)] if rows else []
    lines += [f"not finished: {name}; `uniad-ray archive delete {report.archive}` goes on" for name in report.resumed]
    lines.append(f"{report.archive}: {sum(entry.images for entry in report.deletions)} images were deleted")
    return "\n".join(lines)


def compaction_as_text(report: CompactionReport) -> str:
    """The shards before and after."""
    verb = "would join" if report.is_dry_run else "joined"
    lines = [
        f"{found.category}: {verb} the small shards, {found.images} images: {found.shards_before} shards with "
        f"{found.chunks_before} chunks before, {found.shards_after} with {found.chunks_after} after"
        for found in report.categories
    ] or ["no category has two small shards; nothing to do"]
    if report.removed_shards:
        lines.append(f"removed {report.removed_shards} shards of interrupted calls")
    if report.categories and not report.is_dry_run:
        lines.append("Unfinished runs and sidecars of the archive are refused from now on; start them again")
    return "\n".join([*lines, f"{report.archive}: {report.images} images"])
