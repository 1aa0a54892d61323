"""Reports as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from uniad_ray.metrics.metric import ALL, ANOMALY_TYPE, MEAN_OF_CATEGORIES, MEAN_OF_TYPES

if TYPE_CHECKING:
    from uniad_ray.archive.manifest import ArchiveManifest
    from uniad_ray.metrics.metric import Metric
    from uniad_ray.pipelines.ablate import AblationReport
    from uniad_ray.pipelines.annotate import AnnotateReport
    from uniad_ray.pipelines.bundles import BundleList
    from uniad_ray.pipelines.evaluate import EvaluationReport
    from uniad_ray.pipelines.fit import FitReport
    from uniad_ray.pipelines.ingest import IngestReport
    from uniad_ray.pipelines.report import ReportResult
    from uniad_ray.pipelines.scenes import ScenesReport
    from uniad_ray.pipelines.score import ScoreReport
    from uniad_ray.pipelines.tune_clip import TuneReport
    from uniad_ray.report.comparison import ComparisonReport
    from uniad_ray.serving.command import Served
    from uniad_ray.serving.key_file import MadeKey, RevokedKey

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


def annotated(report: AnnotateReport) -> str:
    """What an annotation made."""
    rows = [
        (category, stage, ", ".join(names))
        for category, stages in report.fields.items()
        for stage, names in stages.items()
    ]
    lines = [table(("category", "stage", "fields"), rows)]
    if report.skipped_files:
        lines.append(f"{report.skipped_files} files were there from an earlier attempt")
    lines.append(
        f"{report.sidecar}: {report.images} images, {report.errors} that cannot be decoded, "
        f"{report.bytes / 2**20:.1f} MiB"
    )
    return "\n".join(lines)


def tuned(report: TuneReport) -> str:
    """What a tuning of CLIP made."""
    rows = [
        (
            entry.category or "all",
            entry.crops,
            entry.held_out,
            f"{100 * entry.accuracy_before:.1f}",
            f"{100 * entry.accuracy_after:.1f}",
            f"{entry.epoch} of {entry.epochs}",
        )
        for entry in report.tuned
    ]
    lines = [f"CLIP of {report.namer}, labels of {report.labels}"]
    if rows:
        header = ("category", "crops", "held out", "right before, %", "right after, %", "epoch")
        lines.append(table(header, rows))
    for entry in report.tuned:
        if entry.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(entry.left_out.items()))
            lines.append(f"{entry.category or 'all'}: objects left out: {reasons}")
        if not entry.epoch:
            lines.append(f"{entry.category or 'all'}: no epoch was better on held-out crops; the CLIP is as it was")
        lines.append(f"{entry.uri}, sha256 {entry.sha256}")
    lines += [f"failed: {name}: {reason}" for name, reason in report.failed.items()]
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
        lines += [f"{entry.category}: {uri}: {reason}" for uri, reason in list(entry.unusual.items())[:LISTED]]
        if entry.method == "altered_copies":
            lines.append(
                f"{entry.category}: has one normal image and was calibrated on altered copies of it; its threshold is "
                "a guess: add normal images"
            )
        if entry.unusual and not entry.published:
            lines.append(
                f"{entry.category}: look at these images; if they belong there, "
                f"`uniad-ray bundles {report.bundles} --publish {entry.category} {entry.version}`"
            )
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
    """Figures of a run, one line a category and group, in per cent; intervals where there are any."""
    fused = [entry for entry in report.metrics if entry.expert is None]
    lines = [_figures(fused)] if fused else []
    lines += _decisions(fused)
    lines += _experts(report.metrics)
    lines += [f"note: {note}" for note in report.notes]
    if report.random_weights:
        lines.append("WARNING: networks with random weights; these figures say nothing of quality")
    lines.append(f"{report.run}: run {report.run_id}, intervals {100 * report.confidence:g} %")
    return "\n".join(lines)


_FIGURES = (
    ("image AUROC", "image_auroc", None),
    ("AP", "image_average_precision", None),
    ("F1-max", "image_f1_max", None),
    ("pixel AUROC", "pixel_auroc", None),
    ("AUPRO", "pixel_aupro", 0.3),
    ("sPRO@0.05", "pixel_spro", 0.05),
)


def _figures(metrics: Sequence[Metric]) -> str:
    keys: dict[tuple[str, str, str], dict[tuple[str, float | None], Metric]] = {}
    for entry in metrics:
        keys.setdefault((entry.category, entry.group, entry.name), {})[entry.metric, entry.limit] = entry
    rows = []
    for (category, group, name), found in keys.items():
        image = found["image_auroc", None]
        rows.append(
            (
                "mean of categories" if category == MEAN_OF_CATEGORIES else category,
                _group_name(group, name),
                image.normal_images,
                image.anomalous_images,
                _percent(image.value) + _interval(image),
                *(
                    _percent(found[key].value if (key := (metric, limit)) in found else None)
                    for _, metric, limit in _FIGURES[1:]
                ),
            )
        )
    return table(("category", "against normal", "normal", "anomalous", *(title for title, _, _ in _FIGURES)), rows)


def _decisions(metrics: Sequence[Metric]) -> list[str]:
    """Errors of each category at the run's thresholds, in words."""
    every = {(entry.category, entry.metric): entry for entry in metrics if entry.group == ALL}
    lines = []
    for category in dict.fromkeys(entry.category for entry in metrics if entry.category != MEAN_OF_CATEGORIES):
        alarms, recall = every.get((category, "false_positive_rate")), every.get((category, "recall"))
        if alarms is None or recall is None or alarms.value is None or recall.value is None:
            continue
        lines.append(
            f"{category}: at its threshold {round(alarms.value * alarms.normal_images)} of {alarms.normal_images} "
            f"normal images are false alarms, {round((1 - recall.value) * recall.anomalous_images)} of "
            f"{recall.anomalous_images} anomalous images are missed"
        )
    return lines


def _experts(metrics: Sequence[Metric]) -> list[str]:
    """Image AUROC of each expert alone, where there are several."""
    alone = [entry for entry in metrics if entry.expert is not None and entry.group in (ALL, ANOMALY_TYPE)]
    names = list(dict.fromkeys(entry.expert for entry in alone))
    if len(names) < 2:
        return []
    rows: dict[tuple[str, str], dict[str | None, Metric]] = {}
    for entry in alone:
        rows.setdefault((entry.category, entry.name), {})[entry.expert] = entry
    return [
        "image AUROC of each expert alone:",
        table(
            ("category", "against normal", *(str(name) for name in names)),
            [
                (category, group, *(_percent(found[name].value) if name in found else "-" for name in names))
                for (category, group), found in rows.items()
            ],
        ),
    ]


def reported(result: ReportResult) -> str:
    """Where a report was written."""
    return f"{result.path}: report of run {result.run_id}, {result.bytes / 2**20:.1f} MiB"


_COMPARED = (
    ("image_auroc", None),
    ("recall", None),
    ("false_positive_rate", None),
    ("pixel_aupro", 0.3),
    ("pixel_spro", 0.05),
)


def compared(report: ComparisonReport) -> str:
    """The main differences between runs, in points of per cent, and decisions that changed."""
    names = {entry.run: f"run {index + 1}" for index, entry in enumerate(report.runs)}
    lines = [f"{names[entry.run]}: {entry.run} (run {entry.run_id})" for entry in report.runs]
    rows = []
    for entry in report.differences:
        if entry.group == "defect_kind" or (entry.metric, entry.limit) not in _COMPARED:
            continue
        low_high = (
            "" if entry.low is None or entry.high is None else f" ({100 * entry.low:+.1f} to {100 * entry.high:+.1f})"
        )
        rows.append(
            (
                names[entry.run],
                "mean of categories" if entry.category == MEAN_OF_CATEGORIES else entry.category,
                _group_name(entry.group, entry.name),
                entry.metric if entry.limit is None else f"{entry.metric}@{entry.limit:g}",
                _percent(entry.baseline),
                _percent(entry.value),
                "-" if entry.difference is None else f"{100 * entry.difference:+.1f}{low_high}",
            )
        )
    if rows:
        header = ("run", "category", "against normal", "figure", "run 1", "this run", "difference")
        lines.append(table(header, rows))
    lines += [
        f"{names[entry.run]}: {entry.changed} of {entry.images} decisions differ from run 1: "
        f"{entry.to_anomalous} became anomalous, {entry.to_normal} normal"
        + (f"; by label {entry.mended} are right now, {entry.broken} wrong" if entry.labelled else "")
        for entry in report.changes
    ]
    lines += [f"note: {note}" for note in report.notes]
    if report.path:
        lines.append(f"{report.path}: the comparison with the images whose decision changed")
    return "\n".join(lines)


def ablated(report: AblationReport) -> str:
    """A filled ablation table, AUROC in per cent, times of an image in milliseconds."""
    columns = list(report.rows[0].settings)
    kinds = ("logical", "structural", "mean")
    header = [*columns, *kinds]
    rows: list[list[str]] = []
    for row in report.rows:
        cells = [row.settings[name] for name in columns]
        for kind in kinds:
            deviation = getattr(row.deviation, kind, None)
            cells.append(
                _percent(getattr(row.image, kind)) + ("" if deviation is None else f" +- {_percent(deviation)}")
            )
        rows.append(cells)
    if any(row.pixel for row in report.rows):
        header += [f"pixel {kind}" for kind in kinds]
        for row, cells in zip(report.rows, rows, strict=True):
            cells += [_percent(getattr(row.pixel, kind, None)) for kind in kinds]
    stages: dict[str, float] = {}
    if any(row.milliseconds for row in report.rows):
        header += ["ms an image", "images a second"]
        for row, cells in zip(report.rows, rows, strict=True):
            total = sum((row.milliseconds or {}).values())
            cells += [f"{total:.1f}", f"{1000 / total:.1f}"] if total else ["-", "-"]
            stages |= row.milliseconds or {}
    title = {"uniad": "UniAD", "tmuad": "TMUAD"}[report.paper]
    lines = [
        f"{title}, table {report.table}: {report.title}; image AUROC, {', '.join(report.categories)}",
        table(header, rows),
    ]
    if stages:
        lines.append(table(("stage", "ms an image"), [(name, f"{value:.2f}") for name, value in stages.items()]))
    if report.random_weights:
        lines.append("note: a network had random weights; these figures say nothing of quality")
    lines.append(f"{report.path}: the table")
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


def served(report: Served) -> str:
    """Where the endpoint is, and how to try it."""
    key = "" if report.is_open else " -H 'Authorization: Bearer KEY'"
    place = f"{report.url}v1/categories/{report.categories[0]}/score"
    return (
        f"{report.url}: scores {', '.join(report.categories)}; Ctrl-C ends it\n"
        f"try: curl{key} -H 'Content-Type: image/png' --data-binary @IMAGE.png {place}"
    )


def made_key(report: MadeKey) -> str:
    """A new key; its only appearance."""
    return f"{report.key}\n{report.keys}: key {report.name!r}, kept as a hash; it is not shown again"


def revoked_key(report: RevokedKey) -> str:
    """That a key is gone."""
    return f"{report.keys}: key {report.name!r} is good no more"


def _group_name(group: str, name: str) -> str:
    if group == ALL:
        return "all anomalies"
    return "mean of types" if (group, name) == (ANOMALY_TYPE, MEAN_OF_TYPES) else name


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _interval(entry: Metric) -> str:
    return "" if entry.low is None or entry.high is None else f" ({100 * entry.low:.1f}-{100 * entry.high:.1f})"
