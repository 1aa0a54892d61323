"""The scores of a chunk: committed once, and read again when a run resumes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ObjectExistsError, ObjectNotFoundError
from uniad_ray.runs.plan import RunChunk, scores_path

_READ_THREADS = 16


def commit_scores(run: Location, chunk: Chunk, run_id: str, data: bytes) -> RunChunk:
    """Writes the scores of a chunk unless they are there: of several attempts, the first one counts.

    A worker that was cut off may finish its chunk after another one has. Its scores are the same, but on another
    processor they may differ in the last digit; without the condition, they would replace rows that were counted.

    Args:
        run: Root of the run.
        chunk: The chunk.
        run_id: Identifier of the run.
        data: The score rows as Parquet.

    Returns:
        Counts and digest of the scores that are there now.
    """
    location = run / scores_path(chunk.name)
    try:
        location.write_bytes(data, if_absent=True)
    except ObjectExistsError:
        if (found := _read(location, chunk, run_id)) is not None:
            return found
        # Left by a run with another plan, or damaged.
        location.write_bytes(data)
    return _counts(chunk, data, _table(data))


def finished_chunks(run: Location, work: Sequence[Chunk], run_id: str) -> list[RunChunk]:
    """Reads the counts and digests of the chunks that are committed; one listing finds them.

    Scores that are damaged, have a wrong number of rows or belong to another plan do not count: they are written again.

    Args:
        run: Root of the run.
        work: All chunks of the run.
        run_id: Identifier of the run.
    """
    present = {info.relative.removesuffix(".parquet") for info in (run / "scores").list(suffix=".parquet")}
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = pool.map(
            lambda chunk: _read(run / scores_path(chunk.name), chunk, run_id),
            [chunk for chunk in work if chunk.name in present],
        )
        return [entry for entry in found if entry is not None]


def _read(location: Location, chunk: Chunk, run_id: str) -> RunChunk | None:
    """The committed scores of a chunk; None if they cannot be used."""
    try:
        data = location.read_bytes()
        table = _table(data)
    except (ObjectNotFoundError, pa.ArrowException, KeyError):
        return None
    is_own = pc.all(pc.equal(table.column("run_id"), run_id)).as_py()
    return _counts(chunk, data, table) if table.num_rows == chunk.rows and is_own else None


def _table(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data), columns=["status", "decision", "run_id"])


def _counts(chunk: Chunk, data: bytes, table: pa.Table) -> RunChunk:
    return RunChunk(
        chunk=chunk.name,
        category=chunk.category,
        rows=table.num_rows,
        errors=pc.sum(pc.equal(table.column("status"), "error")).as_py() or 0,
        anomalous=pc.sum(pc.equal(table.column("decision"), "anomalous")).as_py() or 0,
        sha256=hashlib.sha256(data).hexdigest(),
        in_review=pc.sum(pc.equal(table.column("decision"), "review")).as_py() or 0,
    )
