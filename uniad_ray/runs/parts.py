"""Verdicts of parts: the images of a run with the same serial are views of one part."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Final

import pyarrow as pa

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_table
from uniad_ray.archive.stores.location import Location

PARTS_NAME: Final = "parts.parquet"
SERIAL: Final = "serial"
"""Metadata column that names the part."""
COLUMNS: Final = ("row_key", "category", "label", "status", "score", "threshold", "decision", "metadata")
"""Columns of schema `score` that a verdict needs."""
_READ_THREADS: Final = 16


@dataclass(frozen=True)
class Part:
    """The verdict of one part; the fields are the columns of schema `part`."""

    serial: str
    decision: str | None
    views: int
    anomalous_views: int
    error_views: int
    margin: float | None
    category: str | None
    row_key: str | None
    label: str | None
    categories: tuple[str, ...]


@dataclass
class _Views:
    """What is known of the views of a part."""

    count: int = 0
    anomalous: int = 0
    errors: int = 0
    in_review: int = 0
    worst: tuple[float, str, str] | None = None
    labels: set[str | None] = field(default_factory=set)
    categories: set[str] = field(default_factory=set)

    def part(self, serial: str) -> Part:
        margin, row_key, category = self.worst or (None, None, None)
        whole = "review" if self.in_review else "normal"
        return Part(
            serial=serial,
            decision="anomalous" if self.anomalous else None if self.errors else whole,
            views=self.count,
            anomalous_views=self.anomalous,
            error_views=self.errors,
            margin=margin,
            category=category,
            row_key=row_key,
            label="anomalous" if "anomalous" in self.labels else None if None in self.labels else "normal",
            categories=tuple(sorted(self.categories)),
        )


def part_verdicts(tables: Iterable[pa.Table]) -> list[Part]:
    """Joins the views of each part, sorted by serial; images without a serial belong to no part.

    Scores of different categories have different thresholds, so the view with the largest score minus threshold is the
    worst one; of equal ones, that with the first row key.

    Args:
        tables: Score rows with at least `COLUMNS`.
    """
    parts: dict[str, _Views] = {}
    for table in tables:
        for row in table.select(COLUMNS).to_pylist():
            serial = next((entry["value"] for entry in row["metadata"] if entry["name"] == SERIAL), None)
            if serial is None:
                continue
            views = parts.setdefault(serial, _Views())
            views.count += 1
            views.anomalous += row["decision"] == "anomalous"
            views.errors += row["status"] == "error"
            views.in_review += row["decision"] == "review"
            views.labels.add(row["label"])
            views.categories.add(row["category"])
            if row["score"] is not None:
                found = (row["score"] - row["threshold"], row["row_key"], row["category"])
                if views.worst is None or (-found[0], found[1]) < (-views.worst[0], views.worst[1]):
                    views.worst = found
    return [parts[serial].part(serial) for serial in sorted(parts)]


def write_parts(run: Location, scores: Iterable[str]) -> None:
    """Writes the verdicts of the parts of a run, if its images have serials; the same rows give the same bytes.

    Args:
        run: Root of the run.
        scores: Paths of all its score files.
    """
    schema = dataset_schema("score")
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        parts = part_verdicts(pool.map(lambda path: read_table(schema, run / path, columns=COLUMNS), scores))
    if parts:
        schema = dataset_schema("part")
        rows = [asdict(part) for part in parts]
        data = encode_table(schema, schema.table({name: [row[name] for row in rows] for name in schema.arrow.names}))
        (run / PARTS_NAME).write_bytes(data)


def read_parts(run: Location) -> list[Part]:
    """Reads the verdicts of the parts of a finished run, sorted by serial; empty if its images have no serials.

    Raises:
        ArchiveError: The file is corrupt.
    """
    if not (run / PARTS_NAME).exists():
        return []
    rows = read_table(dataset_schema("part"), run / PARTS_NAME).to_pylist()
    return [Part(**{**row, "categories": tuple(row["categories"])}) for row in rows]
