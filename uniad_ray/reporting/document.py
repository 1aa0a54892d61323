"""The report as JSON and as Parquet."""

from __future__ import annotations

import json

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.metrics.metric import ALL, Metric
from uniad_ray.reporting.model import CategoryResult, Report


def encode_json(report: Report) -> bytes:
    """Encodes everything but the pictures as one JSON document, described in `schemas/report.json`."""
    document = report.model_dump(mode="json")
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def encode_parquet(report: Report) -> bytes:
    """Encodes the metrics by schema `metric`, after three counts per category.

    The counts are the metrics `scored_images`, `error_images` and `images_called_anomalous`. They need no labels; a run
    without labels has only these.
    """
    rows = [row for result in report.categories for row in _counts(result)] + list(report.metrics)
    schema = dataset_schema("metric")
    return encode_table(
        schema, schema.table({name: [getattr(row, name) for row in rows] for name in schema.arrow.names})
    )


def _counts(result: CategoryResult) -> list[Metric]:
    counts = {
        "scored_images": result.images - result.errors,
        "error_images": result.errors,
        "images_called_anomalous": result.called_anomalous,
    }
    return [
        Metric(
            category=result.category,
            group=ALL,
            name=ALL,
            metric=name,
            value=value,
            normal_images=result.normal_images,
            anomalous_images=result.anomalous_images,
        )
        for name, value in counts.items()
    ]
