"""`uniad-ray bundles`: lists bundles and publishes a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from uniad_ray.cli.options import print_report, reporting
from uniad_ray.cli.tables import mib, table

if TYPE_CHECKING:
    from uniad_ray.scoring.bundles.versions import BundleList


@click.command()
@click.argument("root")
@click.option("--publish", nargs=2, metavar="CATEGORY VERSION", help="Make this version the one that scores CATEGORY.")
@reporting
def bundles(root: str, publish: tuple[str, str] | None, as_json: bool) -> int:
    """List the bundles of ROOT, or publish any version of a bundle."""
    from uniad_ray.scoring.bundles.versions import list_bundles, publish_bundle

    if publish is not None:
        publish_bundle(root, *publish)
    report = list_bundles(root)
    print_report(report, as_json, as_text)
    return 1 if report.unreadable else 0


def as_text(report: BundleList) -> str:
    """Versions of bundles; `*` marks the published ones. Then the versions that cannot be read."""
    rows = [
        (
            "*" if entry.published else "",
            entry.category,
            entry.version,
            entry.profile,
            "+".join(entry.experts),
            entry.calibration,
            entry.fit_images,
            f"{entry.threshold:.3f}",
            mib(entry.bytes),
        )
        for entry in report.bundles
    ]
    header = ("", "category", "version", "profile", "experts", "calibration", "fitted on", "threshold", "size")
    return "\n".join([*([table(header, rows)] if rows else []), *(f"unreadable: {why}" for why in report.unreadable)])
