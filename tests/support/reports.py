"""Hand-made score rows and reports."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.metrics.metric import Metric
from uniad_ray.reporting.distributions import curves, expert_contributions, score_histogram
from uniad_ray.reporting.drawing.pictures import map_scale
from uniad_ray.reporting.model import (
    CategoryDetail,
    CategoryResult,
    ExpertChoice,
    ImageErrorRow,
    Lineage,
    Network,
    Report,
    RunFacts,
    TimingRow,
)
from uniad_ray.reporting.selection import gallery
from uniad_ray.runs.scored_images import ScoredImages, by_category

HOSTILE = '"><script>alert(1)</script>|`*[x](y)\n\u202e'
"""A hostile file name, reason or category, which every report must show as plain text."""


def score_table(
    scores: np.ndarray | list[float],
    labels: list[str | None],
    *,
    threshold: float = 0.5,
    category: str = "part",
    anomaly_types: list[str | None] | None = None,
    defect_kind: str = "dent",
    name: str = "",
    reasons: tuple[str, ...] = (),
) -> pa.Table:
    """Score rows of one category with two experts; the second gives half the score of the first."""
    count = len(labels)
    values = [float(score) for score in scores]
    columns = {
        "row_key": [f"{category}-{index:06d}" for index in range(count)],
        "source_uri": [f"s3://plant/{category}/{index:06d}{name}.png" for index in range(count)],
        "category": [category] * count,
        "split": ["test"] * count,
        "label": labels,
        "defect_kind": [defect_kind if label == "anomalous" else None for label in labels],
        "anomaly_type": anomaly_types or [None] * count,
        "status": ["ok"] * count,
        "error_kind": [None] * count,
        "error": [None] * count,
        "experts": [
            [
                {"expert": "patch", "raw": value, "calibrated": value},
                {"expert": "student", "raw": value, "calibrated": value / 2},
            ]
            for value in values
        ],
        "score": values,
        "threshold": [threshold] * count,
        "decision": ["anomalous" if value > threshold else "normal" for value in values],
        "reasons": [list(reasons)] * count,
        "metadata": [[]] * count,
    }
    schema = dataset_schema("score").arrow
    return pa.table({name: pa.array(columns[name], type=schema.field(name).type) for name in columns})


def rows_of(table: pa.Table, split: str | None = "test") -> ScoredImages:
    """The scored images of a table with one category."""
    (images,) = by_category(table)
    return images.with_score(split)


def make_metric(
    metric: str,
    value: float | None,
    *,
    category: str = "part",
    group: str = "all",
    name: str = "all",
    expert: str | None = None,
    limit: float | None = None,
) -> Metric:
    """A metric with an interval of width 0.1."""
    known = value is not None
    return Metric(
        category=category,
        group=group,
        name=name,
        expert=expert,
        metric=metric,
        limit=limit,
        value=value,
        low=value - 0.05 if known else None,
        high=value + 0.05 if known else None,
        normal_images=40,
        anomalous_images=20,
    )


def lineage() -> Lineage:
    """Lineage of a bundle with two experts and one network."""
    return Lineage(
        created_at="2026-11-21T10:00:00+00:00",
        code_version="0.1.0",
        profile="embedded",
        fusion_rule="sum",
        expert_weights={"patch": 1.0, "student": 0.5},
        choices=(),
        archive="s3://plant/reference",
        archive_digest="a" * 64,
        fit_images=160,
        held_out_images=40,
        calibration="holdout",
        false_positive_rate=0.01,
        threshold_method="gaussian_tail",
        networks=(Network(name="pyramid", uri="pypi:wheel/weights.pth", sha256="b" * 64, trained=True),),
    )


def with_choices(report: Report) -> Report:
    """The same report with results of expert selection."""
    choices = (
        ExpertChoice(expert="patch", weight=1.0, reason="always takes part", synthetic_auroc={"surface": 0.912}),
        ExpertChoice(expert="student", weight=0.0, reason="would add too little", synthetic_auroc={"surface": 0.345}),
    )
    chosen = lineage().model_copy(update={"choices": choices})
    categories = tuple(entry.model_copy(update={"lineage": chosen}) for entry in report.categories)
    return report.model_copy(update={"categories": categories})


def category_result(category: str = "part", rows: ScoredImages | None = None, **changes: object) -> CategoryResult:
    """The result of a category with these rows; without rows, no image was scored."""
    values: dict[str, object] = {
        "category": category,
        "images": 0 if rows is None else len(rows.scores),
        "errors": 0,
        "called_anomalous": 0 if rows is None else int(rows.called.sum()),
        "split": "test",
        "threshold": None if rows is None else rows.threshold,
        "normal_images": 0 if rows is None else int(rows.normal.sum()),
        "anomalous_images": 0 if rows is None else int(rows.anomalous.sum()),
        "false_alarms": 0 if rows is None else int(rows.false_alarms.sum()),
        "misses": 0 if rows is None else int(rows.misses.sum()),
        "bundle_version": "20261121-100000-abcdef01",
        "bundle_digest": "c" * 64,
        "lineage": lineage(),
    }
    return CategoryResult.model_validate(values | changes)


def make_report(
    tables: dict[str, pa.Table],
    *,
    metrics: tuple[Metric, ...] = (),
    errors: tuple[ImageErrorRow, ...] = (),
    per_section: int = 4,
    random_weights: bool = False,
    detailed: int = 12,
    timings: tuple[TimingRow, ...] = (),
) -> Report:
    """A report on these score rows, by category."""
    scored = {category: rows_of(table) for category, table in tables.items()}
    results = tuple(
        category_result(category, rows, errors=sum(error.category == category for error in errors))
        for category, rows in scored.items()
    )
    return Report(
        run=RunFacts(
            location="s3://plant/runs/2026-11-21",
            run_id="0123456789abcdef",
            code_version="0.1.0",
            archive="s3://plant/archives/2026-11-21",
            archive_digest="d" * 64,
            bundle_root="s3://plant/bundles",
            options={"categories": None, "maps": "all", "false_positive_rate": None},
            images=sum(table.num_rows for table in tables.values()) + len(errors),
            errors=len(errors),
            called_anomalous=sum(entry.called_anomalous for entry in results),
            random_weights=random_weights,
        ),
        notes=("2 images have no label and are left out",),
        confidence=0.95,
        resamples=1000,
        metrics=metrics,
        categories=results,
        details=tuple(
            CategoryDetail(
                category=category,
                histogram=score_histogram(rows),
                curves=curves(rows),
                experts=expert_contributions(rows, metrics, {"patch": 1.0, "student": 0.5}),
                map_scale=map_scale(rows.scores, rows.threshold),
                gallery=gallery(rows, per_section),
            )
            for category, rows in list(scored.items())[:detailed]
        ),
        error_kinds={error.kind: 1 for error in errors},
        errors=errors,
        timings=timings,
    )


def labelled_table(*, category: str = "part", **options: object) -> pa.Table:
    """Four normal and four anomalous images, with one of each on the wrong side of the threshold."""
    scores = [0.1, 0.2, 0.3, 0.7, 0.4, 0.8, 0.9, 1.0]
    labels: list[str | None] = ["normal"] * 4 + ["anomalous"] * 4
    return score_table(scores, labels, category=category, **options)  # type: ignore[arg-type]
