"""Ingests without Ray, and what an archive then holds."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.pipelines.ingest import IngestReport, job

SMALL = ShardLimits(rows=4, row_group_rows=2)
Ingest = Callable[..., IngestReport]


class StoppedError(Exception):
    """Stands for a kill."""


def without_ray(patch: pytest.MonkeyPatch, *, stop_after: int | None = None) -> Ingest:
    """The ingest, with the tasks of Ray in this process, one after the other.

    Args:
        patch: Undoes the replacement.
        stop_after: Number of shards after which the ingest raises StoppedError.
    """

    def build(pending: list[int], work: Callable[[dict[str, Any]], Any], *_: object) -> None:
        build_here(pending[:stop_after], work)
        if stop_after is not None:
            raise StoppedError

    def run(source: Path | str, archive: Path | str, **options: Any) -> IngestReport:
        with patch.context() as replaced:
            replaced.setattr(job, "_build_on_ray", build)
            return job.ingest(str(source), str(archive), limits=SMALL, **options)

    return run


def build_here(pending: list[int], work: Callable[[dict[str, Any]], Any], *_: object) -> None:
    """Builds planned shards in this process."""
    for index in pending:
        work({"row_group": index})


def all_bytes(archive: Path | str) -> dict[str, bytes]:
    """Every object of an archive."""
    return {info.relative: info.location.read_bytes() for info in Location.parse(archive).list()}


def rows(archive: Path | str) -> list[dict[str, Any]]:
    """Every image row of an archive, in the order of its manifest."""
    root = Location.parse(archive)
    found: list[dict[str, Any]] = []
    for shard in read_manifest(root).shards:
        found += pq.read_table(io.BytesIO((root / shard.path).read_bytes())).to_pylist()
    return found


def outcome(report: IngestReport) -> dict[str, Any]:
    """The files of an ingest: numbers of taken and known ones, names of changed ones, reasons by name of rejected."""
    return {
        "taken": report.taken,
        "known": report.known,
        "changed": [Path(uri).name for uri in report.changed],
        "rejected": {Path(entry.source_uri).name: entry.reason for entry in report.rejected},
    }
