"""The report as JSON and Parquet."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
from support.reports import HOSTILE, labelled_table, make_metric, make_report, score_table

from uniad_ray.archive.schemas import dataset_schema, schema_directory
from uniad_ray.reporting.document import encode_json, encode_parquet
from uniad_ray.reporting.model import ImageErrorRow, Report


def test_json_round_trip_keeps_hostile_names() -> None:
    errors = (ImageErrorRow(category=HOSTILE, source_uri=HOSTILE, kind="truncated", text=HOSTILE),)
    report = make_report(
        {HOSTILE: labelled_table(category=HOSTILE)}, metrics=(make_metric("image_auroc", 0.8),), errors=errors
    )
    assert Report.model_validate_json(encode_json(report)) == report
    assert encode_json(report) == encode_json(report)


def test_json_has_the_fields_of_its_schema() -> None:
    document = json.loads(encode_json(make_report({"part": labelled_table()})))
    described = json.loads((schema_directory() / "report.json").read_text())
    assert list(document) == [field["name"] for field in described["fields"]]
    assert document["format_version"] == described["version"]


def test_parquet_has_counts_and_metrics() -> None:
    metrics = (make_metric("image_auroc", 0.8), make_metric("image_auroc", 0.7, expert="patch"))
    table = pq.read_table(io.BytesIO(encode_parquet(make_report({"part": labelled_table()}, metrics=metrics))))
    dataset_schema("metric").check(table, source="the report")
    rows = [(row["metric"], row["expert"], row["value"]) for row in table.to_pylist()]
    assert rows == [
        ("scored_images", None, 8),
        ("error_images", None, 0),
        ("images_called_anomalous", None, 4),
        ("image_auroc", None, 0.8),
        ("image_auroc", "patch", 0.7),
    ]


def test_parquet_without_labels_has_only_counts() -> None:
    tables = {name: score_table([0.1, 0.9, 0.8], [None] * 3, category=name) for name in ("a", "b")}
    table = pq.read_table(io.BytesIO(encode_parquet(make_report(tables))))
    assert [(row["category"], row["metric"], row["value"]) for row in table.to_pylist()] == [
        (name, metric, value)
        for name in ("a", "b")
        for metric, value in (("scored_images", 3), ("error_images", 0), ("images_called_anomalous", 2))
    ]
