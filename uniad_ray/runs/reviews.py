"""Marks that reviewers set on the images of a run: false alarms and misses, kept beside it."""

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

    @property
    def label(self) -> Label | None:
        """What the image is, by this mark; None where the mark withdraws another."""
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


class MarkLog:
    """The marks of a run for one that reads them often: a file of marks never changes, so each is read once."""

    def __init__(self, run: Location) -> None:
        """Names the run; nothing is read yet."""
        self._run = run
        self._lock = threading.Lock()
        self._by_file: dict[str, list[Mark]] = {}
        self._marks: dict[str, Mark] = {}

    def read(self) -> dict[str, Mark]:
        """The mark that counts for each image, as `read_marks`; the same object as long as there are no new marks.

        Raises:
            ArchiveError: A file of marks is damaged.
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
    """The mark that counts for each image, by row key; withdrawn ones are not there.

    Raises:
        ArchiveError: A file of marks is damaged.
        StoreError: The store cannot be read.
    """
    return MarkLog(run).read()


def _read_file(location: Location) -> list[Mark]:
    return [Mark(**row) for row in read_table(dataset_schema("mark"), location).to_pylist()]


def _latest(marks: Sequence[Mark]) -> dict[str, Mark]:
    latest = {mark.row_key: mark for mark in sorted(marks, key=lambda mark: (mark.marked_at, mark.mark))}
    return {key: mark for key, mark in latest.items() if mark.mark != "none"}
