"""Schemas of all stored datasets, read from `schemas/*.json`, and checks against them."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        reads: Oldest version that can be read: later versions only added columns.
        since: The version that added a column, for each column that version 1 did not have.
    """

    name: str
    version: int
    arrow: pa.Schema
    description: str
    reads: int = 1
    since: Mapping[str, int] = field(default_factory=dict)

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
            arrays = [pa.array(columns[entry.name], type=entry.type) for entry in self.arrow]
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
        for entry in self.arrow:
            if not entry.nullable and entry.name in table.column_names and table.column(entry.name).null_count:
                raise ArchiveError(f"{source}: column {entry.name} holds nulls, which schema {self.name} forbids")

    def check_columns(self, schema: pa.Schema, *, source: str) -> None:
        """Checks column names and types only; the Parquet footer is enough for this.

        Raises:
            ArchiveError: As `check`.
        """
        found_version = (schema.metadata or {}).get(b"uniad_ray.schema_version")
        version = self.version if found_version is None else int(found_version)
        if not self.reads <= version <= self.version:
            raise ArchiveError(
                f"{source}: written with version {version} of schema {self.name}; this code reads {self._readable}; "
                "write it again, or use the version of uniad_ray that wrote it"
            )
        fields = [entry for entry in self.arrow if self.since.get(entry.name, 1) <= version]
        if schema.names != [entry.name for entry in fields]:
            raise ArchiveError(
                f"{source}: columns {schema.names} are not those of schema {self.name} version {version}: "
                f"{[entry.name for entry in fields]}"
            )
        for entry in fields:
            found = schema.field(entry.name).type
            if found != entry.type:
                raise ArchiveError(
                    f"{source}: column {entry.name} is {found}; schema {self.name} version {version} says {entry.type}"
                )

    def complete(self, table: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
        """Adds the columns that an older version did not have: empty lists, or nulls.

        Args:
            table: Columns of a file that `check_columns` accepted.
            columns: Columns to return; None returns all.

        Returns:
            The columns in the order of the present version, so that tables of all versions can be joined.
        """
        wanted = self.arrow.names if columns is None else columns
        for name in wanted:
            if name not in table.column_names:
                entry = self.arrow.field(name)
                value: list[Any] | None = [] if pa.types.is_list(entry.type) else None
                table = table.append_column(entry, pa.array([value] * table.num_rows, type=entry.type))
        ordered = table.select([name for name in self.arrow.names if name in table.column_names])
        return ordered.replace_schema_metadata(self.arrow.metadata) if columns is None else ordered

    @property
    def _readable(self) -> str:
        return str(self.version) if self.reads == self.version else f"{self.reads} to {self.version}"


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
        reads=document.get("reads", document["version"]),
        since={column["name"]: column["since"] for column in document["columns"] if "since" in column},
    )


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character == "<") - (character == ">")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]
