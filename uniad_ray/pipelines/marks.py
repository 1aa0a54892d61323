"""Marks that reviewers set on the images of a run: false alarms and misses, kept beside it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from uniad_ray.archive.object_store import Location
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_table

FOLDER: Final = "marks"
_READ_THREADS = 16

MarkKind = Literal["false_alarm", "miss", "confirmed", "none"]


@dataclass(frozen=True)
class Mark:
    """What a reviewer says of one scored image.

    Attributes:
        row_key: Key of the image row.
        category: Its category.
        mark: What it is; `none` withdraws an earlier mark.
        score: Score that the reviewer saw.
        threshold: Threshold that the reviewer saw.
        reviewer: Who it was.
        marked_at: UTC, ISO 8601.
        note: What the reviewer wrote.
    """

    row_key: str
    category: str
    mark: MarkKind
    score: float
    threshold: float
    reviewer: str
    marked_at: str
    note: str | None = None


def now() -> str:
    """The time, as marks have it: sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def write_marks(run: Location, marks: Sequence[Mark]) -> None:
    """Adds marks to a run, as one file that no other writer can touch.

    Args:
        run: Root of the run.
        marks: At least one.
    """
    schema = dataset_schema("mark")
    table = schema.table({name: [getattr(mark, name) for mark in marks] for name in schema.arrow.names})
    # Reviewers at several gateways write at the same time: a name of its own for each, and readers order by time.
    name = f"{marks[0].marked_at.replace(':', '')}-{uuid.uuid4().hex[:12]}.parquet"
    (run / FOLDER / name).write_bytes(encode_table(schema, table), if_absent=True)


def read_marks(run: Location) -> dict[str, Mark]:
    """The mark that counts for each image, by row key; withdrawn ones are not there.

    Raises:
        ArchiveError: A file of marks is damaged.
        StoreError: The store cannot be read.
    """
    schema = dataset_schema("mark")
    places = [info.location for info in (run / FOLDER).list(suffix=".parquet")]
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        tables = list(pool.map(lambda place: read_table(schema, place), places))
    marks = [Mark(**row) for table in tables for row in table.to_pylist()]
    latest = {mark.row_key: mark for mark in sorted(marks, key=lambda mark: (mark.marked_at, mark.mark))}
    return {key: mark for key, mark in latest.items() if mark.mark != "none"}
