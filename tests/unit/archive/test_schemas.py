from __future__ import annotations

import json

import pyarrow as pa
import pytest

from uniad_ray.archive.schemas import dataset_schema, parse_type, schema_directory
from uniad_ray.errors import ArchiveError

NAMES = sorted(
    entry.name.removesuffix(".json") for entry in schema_directory().iterdir() if entry.name.endswith(".json")
)


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_is_complete(name: str) -> None:
    document = json.loads((schema_directory() / f"{name}.json").read_text())
    assert document["name"] == name
    assert document["version"] >= 1
    assert document["description"]
    for column in document["columns" if document["kind"] == "dataset" else "fields"]:
        assert set(column) - {"since"} == {"name", "type", "unit", "nullable", "description"}
        assert column["description"].endswith(".")
    if document["kind"] == "document":
        return
    schema = dataset_schema(name)
    assert schema.arrow.names == [column["name"] for column in document["columns"]]
    assert [field.nullable for field in schema.arrow] == [column["nullable"] for column in document["columns"]]


def test_types_are_parsed() -> None:
    assert parse_type("list<struct<a: string, b: list<int32>>>") == pa.list_(
        pa.struct([pa.field("a", pa.string()), pa.field("b", pa.list_(pa.int32()))])
    )
    with pytest.raises(ValueError, match="unknown type 'decimal'"):
        parse_type("decimal")


def test_tables_must_match_the_schema() -> None:
    schema = dataset_schema("run_chunk")
    good = {"chunk": ["a"], "category": ["c"], "rows": [1], "errors": [0], "anomalous": [0], "sha256": ["x"]}
    good["in_review"] = [0]
    table = schema.table(good)
    schema.check(table, source="here")
    with pytest.raises(ArchiveError, match=r"missing columns \['sha256'\]"):
        schema.table({name: value for name, value in good.items() if name != "sha256"})
    with pytest.raises(ArchiveError, match=r"unknown columns \['more'\]"):
        schema.table({**good, "more": [1]})
    with pytest.raises(ArchiveError, match="rows holds nulls"):
        schema.table({**good, "rows": [None]})
    position = schema.arrow.get_field_index("rows")
    retyped = table.set_column(position, "rows", pa.array([1.0]))
    with pytest.raises(ArchiveError, match="there: column rows is double"):
        schema.check(retyped, source="there")


def test_another_schema_version_is_refused() -> None:
    schema = dataset_schema("run_chunk")
    table = schema.arrow.empty_table().replace_schema_metadata({"uniad_ray.schema_version": "99"})
    with pytest.raises(
        ArchiveError, match="written with version 99 of schema run_chunk; this code reads 1 to 2; write it again"
    ):
        schema.check(table, source="there")


FIRST_COLUMNS = {
    "image": "row_key image_id image source_uri category split label defect_kind anomaly_type masks format width "
    "height captured_at",
    "score": "row_key image_id source_uri category split label defect_kind anomaly_type shard row_group row status "
    "error_kind error experts score threshold decision reasons run_id bundle_version bundle_digest",
}
"""Columns of version 1, as archives and runs in use have them."""


@pytest.mark.parametrize("name", FIRST_COLUMNS)
def test_files_of_the_first_version_can_be_read(name: str) -> None:
    schema = dataset_schema(name)
    fields = [schema.arrow.field(column) for column in FIRST_COLUMNS[name].split()]
    first = pa.schema(fields, metadata={"uniad_ray.schema_version": "1"})
    schema.check_columns(first, source="old")
    both = pa.concat_tables([schema.complete(first.empty_table()), schema.arrow.empty_table()])
    assert both.column_names == schema.arrow.names
