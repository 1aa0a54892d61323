"""Schemas of all stored datasets, read from `schemas/*.json`, and checks against them."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pyarrow as pa

from uniad_ray.errors import ArchiveError

_PRIMITIVES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "binary": pa.binary(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bool": pa.bool_(),
}


@dataclass(frozen=True)
class DatasetSchema:
    """The schema of one dataset.

    Attributes:
        name: Name of the dataset, and of its file in `schemas/`.
        version: Incremented by every change that breaks old readers.
        arrow: The columns; name and version are stored in the metadata of the Parquet file.
        description: Contents of a row.
    """

    name: str
    version: int
    arrow: pa.Schema
    description: str

    def table(self, columns: dict[str, Any]) -> pa.Table:
        """Builds a table with this schema.

        Args:
            columns: Values by column name, exactly the columns of the schema.

        Raises:
            ArchiveError: A column is missing, unknown, of the wrong type, or null although not nullable.
        """
        if set(columns) != set(self.arrow.names):
            missing = sorted(set(self.arrow.names) - set(columns))
            unknown = sorted(set(columns) - set(self.arrow.names))
            raise ArchiveError(f"schema {self.name}: missing columns {missing}, unknown columns {unknown}")
        try:
            arrays = [pa.array(columns[field.name], type=field.type) for field in self.arrow]
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ArchiveError(f"schema {self.name}: {error}") from error
        table = pa.Table.from_arrays(arrays, schema=self.arrow)
        self.check(table, source=f"a new {self.name} table")
        return table

    def check(self, table: pa.Table, *, source: str) -> None:
        """Checks columns, types and nulls of a table after reading or before writing.

        Raises:
            ArchiveError: The table does not fit; the message names `source`, the column and what was expected.
        """
        self.check_columns(table.schema, source=source)
        for field in self.arrow:
            if not field.nullable and table.column(field.name).null_count:
                raise ArchiveError(f"{source}: column {field.name} holds nulls, which schema {self.name} forbids")

    def check_columns(self, schema: pa.Schema, *, source: str) -> None:
        """Checks column names and types only; the Parquet footer is enough for this.

        Raises:
            ArchiveError: As `check`.
        """
        if schema.names != self.arrow.names:
            raise ArchiveError(
                f"{source}: columns {schema.names} are not those of schema {self.name} version {self.version}: "
                f"{self.arrow.names}"
            )
        for field in self.arrow:
            found = schema.field(field.name).type
            if found != field.type:
                raise ArchiveError(
                    f"{source}: column {field.name} is {found}; schema {self.name} version {self.version} "
                    f"says {field.type}"
                )
        version = (schema.metadata or {}).get(b"uniad_ray.schema_version")
        if version is not None and int(version) != self.version:
            raise ArchiveError(
                f"{source}: written with version {int(version)} of schema {self.name}; this code reads {self.version}"
            )


def parse_type(text: str) -> pa.DataType:
    """Parses a type from `schemas/*.json` into an Arrow type.

    Args:
        text: A primitive, `list<T>` or `struct<name: T, ...>`, with any nesting.

    Raises:
        ValueError: The text is not a valid type.
    """
    text = text.strip()
    if text in _PRIMITIVES:
        return _PRIMITIVES[text]
    if match := re.fullmatch(r"list<(.+)>", text):
        return pa.list_(parse_type(match[1]))
    if match := re.fullmatch(r"struct<(.+)>", text):
        fields = [part.split(":", 1) for part in _split_outside_brackets(match[1])]
        return pa.struct([pa.field(name.strip(), parse_type(kind)) for name, kind in fields])
    raise ValueError(f"unknown type {text!r}; use {', '.join(_PRIMITIVES)}, list<T> or struct<name: T>")


def schema_directory() -> Traversable:
    """Folder of the schemas: inside an installed wheel, or next to the package in a checkout."""
    packed = resources.files("uniad_ray") / "_schemas"
    if packed.is_dir():
        return packed
    return Path(__file__).parents[2] / "schemas"


@functools.cache
def dataset_schema(name: str) -> DatasetSchema:
    """Loads one schema by name, such as `image` or `score`."""
    document = json.loads((schema_directory() / f"{name}.json").read_text(encoding="utf-8"))
    fields = [
        pa.field(
            column["name"],
            parse_type(column["type"]),
            nullable=column["nullable"],
            metadata={"description": column["description"]},
        )
        for column in document["columns"]
    ]
    metadata = {"uniad_ray.schema": document["name"], "uniad_ray.schema_version": str(document["version"])}
    return DatasetSchema(
        name=document["name"],
        version=document["version"],
        arrow=pa.schema(fields, metadata=metadata),
        description=document["description"],
    )


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character == "<") - (character == ">")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]
