"""The log of a training: one row per step, one Parquet file per checkpoint."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_table
from uniad_ray.archive.stores.location import Location

_FOLDER = "log"


class StepLog:
    """Collects steps; the steps between two checkpoints always go to the same file."""

    def __init__(self, folder: Location | None) -> None:
        """Starts with an empty log.

        Args:
            folder: Folder of the training; None keeps no log.
        """
        self._folder = folder
        self._rows: list[dict[str, Any]] = []

    def add(self, **row: float | None) -> None:
        """Adds a step; keys are columns of schema `training_step`, missing columns are null."""
        self._rows.append(row)

    def write(self) -> None:
        """Writes the steps since the last call."""
        if self._folder is not None and self._rows:
            schema = dataset_schema("training_step")
            table = schema.table({name: [row.get(name) for row in self._rows] for name in schema.arrow.names})
            location = self._folder / f"{_FOLDER}/steps-{self._rows[0]['step']:08d}.parquet"
            location.write_bytes(encode_table(schema, table))
        self._rows = []


def read_step_log(folder: Location) -> pa.Table:
    """All steps of a training, in order.

    Raises:
        ArchiveError: A file is corrupt.
    """
    schema = dataset_schema("training_step")
    tables = [read_table(schema, info.location) for info in (folder / _FOLDER).list(suffix=".parquet")]
    return pa.concat_tables(tables) if tables else schema.arrow.empty_table()
