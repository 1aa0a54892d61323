"""Marks that reviewers set on the images of a run, such as false alarms and misses, stored with the run."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_table
from uniad_ray.archive.stores.location import Location

FOLDER: Final = "marks"
_READ_THREADS = 16

MarkKind = Literal["false_alarm", "miss", "confirmed", "none"]
Label = Literal["normal", "anomalous"]


@dataclass(frozen=True)
class Mark:
    """A reviewer's judgement of one scored image.

    Attributes:
        row_key: Key of the image row.
        category: Its category.
        mark: The judgement; `none` withdraws an earlier mark.
        score: Score shown to the reviewer.
        threshold: Threshold shown to the reviewer.
        reviewer: Name of the reviewer.
        marked_at: UTC, ISO 8601.
        note: Free text of the reviewer.
    """

    row_key: str
    category: str
    mark: MarkKind
    score: float
    threshold: float
    reviewer: str
    marked_at: str
    note: str | None = None

    @property
    def label(self) -> Label | None:
        """Label of the image by this mark; None if the mark withdraws another."""
        match self.mark:
            case "false_alarm":
                return "normal"
            case "miss":
                return "anomalous"
            case "confirmed":
                return "anomalous" if self.score > self.threshold else "normal"
            case "none":
                return None


def now() -> str:
    """The current UTC time in ISO 8601 with microseconds; sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def write_marks(run: Location, marks: Sequence[Mark]) -> None:
    """Add marks to a run as one new file with a unique name.

    Args:
        run: Root of the run.
        marks: At least one.
    """
    schema = dataset_schema("mark")
    table = schema.table({name: [getattr(mark, name) for mark in marks] for name in schema.arrow.names})
    # Several gateways may write at the same time. Unique names avoid conflicts; readers sort by time.
    name = f"{marks[0].marked_at.replace(':', '')}-{uuid.uuid4().hex[:12]}.parquet"
    (run / FOLDER / name).write_bytes(encode_table(schema, table))


class MarkLog:
    """The marks of a run, cached. Files of marks are immutable, so each is read once."""

    def __init__(self, run: Location) -> None:
        """Take the root of the run; nothing is read yet."""
        self._run = run
        self._lock = threading.Lock()
        self._by_file: dict[str, list[Mark]] = {}
        self._marks: dict[str, Mark] = {}

    def read(self) -> dict[str, Mark]:
        """Return the same as `read_marks`; the same object while there are no new marks.

        Raises:
            ArchiveError: A file of marks is corrupt.
            StoreError: The store cannot be read.
        """
        with self._lock:
            places = {info.relative: info.location for info in (self._run / FOLDER).list(suffix=".parquet")}
            if places.keys() != self._by_file.keys():
                new = {name: place for name, place in places.items() if name not in self._by_file}
                with ThreadPoolExecutor(_READ_THREADS) as pool:
                    read = dict(zip(new, pool.map(_read_file, new.values()), strict=True))
                kept = {name: marks for name, marks in self._by_file.items() if name in places}
                self._by_file = kept | read
                self._marks = _latest([mark for marks in self._by_file.values() for mark in marks])
            return self._marks


def read_marks(run: Location) -> dict[str, Mark]:
    """Return the latest mark of each image by row key, without withdrawn marks.

    Raises:
        ArchiveError: A file of marks is corrupt.
        StoreError: The store cannot be read.
    """
    return MarkLog(run).read()


def _read_file(location: Location) -> list[Mark]:
    return [Mark(**row) for row in read_table(dataset_schema("mark"), location).to_pylist()]


def _latest(marks: Sequence[Mark]) -> dict[str, Mark]:
    latest = {mark.row_key: mark for mark in sorted(marks, key=lambda mark: (mark.marked_at, mark.mark))}
    return {key: mark for key, mark in latest.items() if mark.mark != "none"}
