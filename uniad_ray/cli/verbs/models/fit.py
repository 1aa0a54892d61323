"""`uniad-ray fit`: fits, verifies and publishes bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from uniad_ray import verbs
from uniad_ray.cli.options import (
    address_option,
    bundles_option,
    category_option,
    device_option,
    overrides_option,
    print_report,
    profile_option,
    reporting,
    sidecar_option,
)
from uniad_ray.cli.tables import LISTED, percent, table

if TYPE_CHECKING:
    from uniad_ray.pipelines.fit.report import FitReport, FittedBundle


@click.command()
@click.argument("archive")
@bundles_option
@category_option
@profile_option
@overrides_option
@click.option(
    "--names",
    metavar="FILE",
    help="YAML file with readable names for object classes, such as `part-1: bolt`, to use in reasons.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="IMAGE",
    help="Leave this image out of this fit: its source URI, or the end of it such as good/007.png; may be repeated.",
)
@click.option(
    "--region",
    "regions",
    multiple=True,
    metavar="[CATEGORY=]FILE",
    help="Part of the images that counts: a PNG mask, white where it does, or polygons in YAML; may be repeated.",
)
@sidecar_option
@click.option(
    "--known-defects",
    metavar="FOLDER",
    help="Images with known defects, 8 or more for each category, to select experts by. Nothing is learned from them.",
)
@click.option("--publish/--no-publish", default=True, show_default=True, help="Publish each verified bundle.")
@click.option("--accept-unusual", is_flag=True, help="Publish even if some normal images do not look like the others.")
@click.option("--workers", type=click.IntRange(1), help="Processes that train students.  [default: by the cluster]")
@click.option("--checkpoints", metavar="ROOT", help="Root of the training checkpoints.  [default: below --bundles]")
@device_option
@address_option
@reporting
def fit(as_json: bool, **options: Any) -> int:
    """Fit a bundle for each category of ARCHIVE on its normal images.

    If some normal images do not look like the others, the bundle is written but not published, the images are named,
    and the exit code is 1.
    """
    report = verbs.fit(**options)
    print_report(report, as_json, as_text)
    return 1 if report.failed or any(entry.unusual and not entry.published for entry in report.fitted) else 0


def as_text(report: FitReport) -> str:
    """The bundles and problems of a fit."""
    rows = [
        (entry.category, entry.version, entry.method, entry.fit_images, entry.held_out_images, f"{entry.threshold:.3f}")
        for entry in report.fitted
    ]
    lines = []
    if rows:
        lines.append(table(("category", "version", "calibration", "fitted on", "held out", "threshold"), rows))
        unpublished = [entry.category for entry in report.fitted if not entry.published]
        if unpublished:
            lines.append(f"not published: {', '.join(unpublished)}")
    for entry in report.fitted:
        lines += [
            f"{entry.category}: excluded {uri}: {reason}" for uri, reason in list(entry.excluded.items())[:LISTED]
        ]
        lines += [
            f"left out of {entry.category}: {uri}: {reason}" for uri, reason in list(entry.skipped.items())[:LISTED]
        ]
        lines += [f"{entry.category}: {uri}: {reason}" for uri, reason in list(entry.unusual.items())[:LISTED]]
        if entry.large_images:
            names = ", ".join(entry.large_images)
            lines.append(
                f"{entry.category}: large images: {names} finds small defects in the files; `--set large_images=null` "
                "omits it"
            )
        if entry.used_known_defects:
            lines.append(f"{entry.category}: {entry.known_defects} known defects helped to select experts")
        elif entry.known_defects:
            lines.append(f"{entry.category}: {entry.known_defects} known defects are too few to select experts by")
        if entry.method == "altered_copies":
            lines.append(
                f"{entry.category}: calibrated on altered copies of its only normal image; the threshold is a guess, "
                "so add normal images"
            )
        if entry.unusual and not entry.published:
            lines.append(
                f"{entry.category}: check these images; if they are normal, publish with "
                f"`uniad-ray bundles {report.bundles} --publish {entry.category} {entry.version}`"
            )
        if entry.own_threshold == entry.threshold:
            lines.append(
                f"{entry.category}: the fit is the same as the published one; that stays published with the threshold "
                f"{entry.threshold:g}, which you had set"
            )
        elif entry.own_threshold is not None:
            lines.append(
                f"{entry.category}: the threshold {entry.own_threshold:g} that you had set was for the last bundle; "
                f"check the new one with `uniad-ray threshold {report.bundles} {entry.category}`"
            )
        if entry.value_range is not None:
            lines.append(_value_range(entry.category, *entry.value_range))
        if entry.twins:
            lines.append(f"{entry.category}: copies of other images: {entry.twins}; each picture counts once")
        if entry.rate_interval is not None and entry.false_positive_rate is not None:
            lines.append(_supported(entry, entry.false_positive_rate, entry.rate_interval))
        if entry.highest:
            lines.append(
                f"{entry.category}: normal images with the highest scores; if one shows a defect, leave it out with "
                "`uniad-ray archive exclude ARCHIVE IMAGE --reason TEXT` and fit again:"
            )
            lines += [f"  {score:.3f}  {uri}" for uri, score in entry.highest.items()]
    lines += [f"failed: {name}: {reason}" for name, reason in report.failed.items()]
    return "\n".join(lines)


def _value_range(category: str, low: int, high: int) -> str:
    return (
        f"{category}: 16-bit images are seen from {low} (black) to {high} (white); --set value_range=[LOW,HIGH] sets "
        "another range"
    )


def _supported(entry: FittedBundle, asked: float, interval: tuple[float, float]) -> str:
    """The false-positive rate that the held-out images support, and the one to expect."""
    resolved = 1.0 / (entry.held_out_images + 1)
    source = "" if asked >= resolved else f", extrapolated from them ({str(entry.threshold_method).replace('_', ' ')})"
    low, high = (percent(end) for end in interval)
    return (
        f"{entry.category}: threshold for {100 * asked:g} % false alarms{source}; expect {low} to {high} % of new "
        f"normal images above it (90 % interval). {entry.held_out_images} held-out images resolve rates from "
        f"{100 * resolved:.2g} % on."
    )
