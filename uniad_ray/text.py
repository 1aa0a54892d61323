"""Reports as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uniad_ray.archive.manifest import ArchiveManifest
    from uniad_ray.pipelines.bundles import BundleList
    from uniad_ray.pipelines.evaluate import EvaluationReport, Metric
    from uniad_ray.pipelines.fit import FitReport
    from uniad_ray.pipelines.ingest import IngestReport
    from uniad_ray.pipelines.scenes import ScenesReport
    from uniad_ray.pipelines.score import ScoreReport

LISTED = 10
"""Rejected files and the like that are listed in text; `--json` gives all."""


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligns a table; numbers to the right, words to the left."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(header), *cells]) for column in range(len(header))]
    numeric = [
        bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))
    ]

    def line(values: Sequence[str]) -> str:
        parts = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *(line(row) for row in cells)])


def ingested(report: IngestReport) -> str:
    """What an ingest did."""
    lines = [f"{report.archive}: {report.new_images} new images, {report.images} in all, digest {report.digest[:12]}"]
    if report.skipped_shards:
        lines.append(f"{report.skipped_shards} shards were there from an earlier attempt")
    if report.rejected:
        lines.append(f"{len(report.rejected)} files were not taken:")
        lines += [f"  {entry.source_uri}: {entry.reason}" for entry in report.rejected[:LISTED]]
        if len(report.rejected) > LISTED:
            lines.append(f"  ... and {len(report.rejected) - LISTED} more; the manifest lists them")
    return "\n".join(lines)


def archive_contents(manifest: ArchiveManifest) -> str:
    """What an archive holds."""
    rows = []
    for name, summary in manifest.categories.items():
        shards = [shard for shard in manifest.shards if shard.category == name]
        for key, count in summary.labels.items():
            split, label = key.split("/")
            rows.append((name, split, label, count))
        size = sum(shard.bytes for shard in shards)
        rows.append((name, "all", f"{len(shards)} shards, {size / 2**20:.1f} MiB", summary.images))
    lines = [table(("category", "split", "label", "images"), rows)]
    for name, summary in manifest.categories.items():
        if summary.defect_kinds:
            kinds = ", ".join(f"{kind} {count}" for kind, count in summary.defect_kinds.items())
            lines.append(f"{name} defects: {kinds}")
    lines.append(f"{manifest.images} images, digest {manifest.digest[:12]}, schema version {manifest.schema_version}")
    if manifest.rejected_count:
        lines.append(f"{manifest.rejected_count} files were not taken:")
        lines += [f"  {entry.source_uri}: {entry.reason}" for entry in manifest.rejected[:LISTED]]
    return "\n".join(lines)


def fitted(report: FitReport) -> str:
    """What a fit made."""
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
            f"left out of {entry.category}: {uri}: {reason}" for uri, reason in list(entry.skipped.items())[:LISTED]
        ]
    lines += [f"failed: {name}: {reason}" for name, reason in report.failed.items()]
    return "\n".join(lines)


def scored(report: ScoreReport) -> str:
    """What a run found."""
    rows = [(name, item.images, item.anomalous, item.errors) for name, item in report.categories.items()]
    lines = [table(("category", "images", "anomalous", "errors"), rows)]
    if report.skipped_chunks:
        lines.append(f"{report.skipped_chunks} chunks were there from an earlier attempt")
    lines.append(f"{report.run}: run {report.run_id}, {report.images} rows")
    return "\n".join(lines)


def evaluated(report: EvaluationReport) -> str:
    """Figures of a run, one line a category and group, in per cent."""
    keys: dict[tuple[str, str, str], dict[str, Metric]] = {}
    for entry in report.metrics:
        keys.setdefault((entry.category, entry.group, entry.name), {})[entry.metric] = entry
    rows = []
    for (category, group, name), metrics in keys.items():
        image, pixel = metrics["image_auroc"], metrics["pixel_auroc"]
        label = "mean of categories" if category == "*" else category
        rows.append(
            (
                label,
                "all anomalies" if group == "all" else name,
                image.normal_images,
                image.anomalous_images,
                _percent(image.value),
                _percent(pixel.value),
            )
        )
    lines = [table(("category", "against normal", "normal", "anomalous", "image AUROC", "pixel AUROC"), rows)]
    notes = {
        f"{entry.category}: {entry.metric}: {entry.note}"
        for entry in report.metrics
        if entry.note and entry.group == "all"
    }
    lines += [f"note: {note}" for note in sorted(notes)]
    if report.error_images:
        lines.append(f"note: {report.error_images} labelled images could not be scored and are left out")
    if report.unlabelled_images:
        lines.append(f"note: {report.unlabelled_images} images have no label and are left out")
    if report.random_weights:
        lines.append("WARNING: networks with random weights; these figures say nothing of quality")
    lines.append(f"{report.run}: run {report.run_id}, split {report.split}")
    return "\n".join(lines)


def bundle_list(report: BundleList) -> str:
    """Versions of bundles; `*` marks the published ones."""
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
            f"{entry.bytes / 2**20:.1f} MiB",
        )
        for entry in report.bundles
    ]
    header = ("", "category", "version", "profile", "experts", "calibration", "fitted on", "threshold", "size")
    return table(header, rows)


def drawn(report: ScenesReport) -> str:
    """What was drawn."""
    return f"{report.destination}: {report.files} files of category {report.category}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
