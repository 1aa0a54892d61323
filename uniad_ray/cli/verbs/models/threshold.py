"""`uniad-ray threshold`: shows the operating points of a category, and publishes another threshold without a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from uniad_ray.cli.options import print_report, reporting
from uniad_ray.cli.tables import percent, table

if TYPE_CHECKING:
    from uniad_ray.evaluation.operating_points import ThresholdReport


@click.command()
@click.argument("bundles", metavar="ROOT")
@click.argument("category")
@click.option("--value", type=float, help="Publish this threshold.")
@click.option("--false-positive-rate", type=float, help="Publish the threshold for this rate of false alarms.")
@click.option("--from-run", metavar="RUN", help="Labelled run to count false alarms and found anomalies in.")
@click.option("--misses", type=click.IntRange(0), help="Publish the highest threshold with so many misses in RUN.")
@click.option("--review-rate", type=float, help="Publish a lower threshold for review for this rate; 0 removes it.")
@reporting
def threshold(bundles: str, category: str, as_json: bool, **options: Any) -> None:
    """Show what thresholds of CATEGORY cost and find, or publish a new version with another threshold.

    The table gives the false alarms to expect from the held-out normal images of the published bundle below ROOT. No
    image is scored and nothing is fitted. `uniad-ray bundles ROOT --publish` switches back.
    """
    from uniad_ray.evaluation.operating_points import set_threshold

    print_report(set_threshold(bundles, category, **options), as_json, as_text)


def as_text(report: ThresholdReport) -> str:
    """The operating points, and what to do next."""
    header = ["", "threshold", "chosen for", "expected false alarms, %", "90 % interval"]
    rows: list[tuple[object, ...]] = []
    for point in report.points:
        low, high = (percent(end) for end in point.rate_interval)
        row = (
            "*" if point.is_current else "",
            f"{point.threshold:.3f}",
            point.chosen_for,
            f"{100 * point.expected_rate:.2f}",
            f"{low} to {high}",
        )
        counts: tuple[object, ...] = ()
        if report.run is not None:
            counts = (f"{point.false_alarms} of {report.normal_images}", f"{point.found} of {report.anomalous_images}")
        rows.append((*row, *counts))
    if report.run is not None:
        header += ["false alarms in the run", "found in the run"]
    lines = [table(header, rows)]
    if report.review_threshold is not None:
        lines.append(f"{report.category}: for review: above {report.review_threshold:.3f}, but not above the threshold")
    if report.published is not None:
        lines.append(
            f"{report.category}: published {report.published}; undo with `uniad-ray bundles {report.bundles} --publish "
            f"{report.category} {report.version}`"
        )
    else:
        lines.append(
            f"{report.category} {report.version}, {report.held_out_images} held-out images; publish one with "
            f"`uniad-ray threshold {report.bundles} {report.category} --value THRESHOLD`"
        )
    return "\n".join(lines)
