"""Commits of chunks: the first attempt counts, and scores that are unusable are written again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.runs.chunks import commit_scores, finished_chunks
from uniad_ray.runs.plan import RunChunk, scores_path

CHUNKS = [Chunk("images/part/a.parquet", index, 2, "part", "test") for index in range(2)]


def scores(run_id: str, *, score: float = 1.0, count: int = 2) -> bytes:
    """Score rows: the first is an error, the others are anomalous."""
    schema = dataset_schema("score")
    rows: list[dict[str, Any]] = []
    for index in range(count):
        row: dict[str, Any] = dict.fromkeys(schema.arrow.names)
        row |= {"row_key": f"{index:032d}", "category": "part", "run_id": run_id, "row": index, "threshold": 0.5}
        row |= {"image_id": "a" * 64, "source_uri": f"/{index}", "split": "test", "shard": CHUNKS[0].shard}
        row |= {"row_group": 0, "bundle_version": "v1", "bundle_digest": "d" * 64, "metadata": [], "experts": []}
        row |= {"left_out": [], "reasons": [], "status": "ok" if index else "error"}
        row |= {"score": score, "decision": "anomalous"} if index else {"error_kind": "empty", "error": "empty"}
        rows.append(row)
    return encode_table(schema, schema.table({name: [row[name] for row in rows] for name in schema.arrow.names}))


def counts(data: bytes, chunk: Chunk = CHUNKS[0]) -> RunChunk:
    return RunChunk(chunk.name, "part", rows=2, errors=1, anomalous=1, sha256=hashlib.sha256(data).hexdigest())


def test_first_attempt_counts(store_root: str) -> None:
    run = Location.parse(store_root)
    first, second = scores("r"), scores("r", score=1.0000001)
    assert first != second
    assert commit_scores(run, CHUNKS[0], "r", first) == counts(first)
    assert commit_scores(run, CHUNKS[0], "r", second) == counts(first)
    assert (run / scores_path(CHUNKS[0].name)).read_bytes() == first
    assert finished_chunks(run, CHUNKS, "r") == [counts(first)]


@pytest.mark.parametrize("left", [scores("other plan"), scores("r", count=1), scores("r")[:-9], b""])
def test_unusable_scores_are_written_again(tmp_path: Path, left: bytes) -> None:
    run = Location.parse(tmp_path)
    (run / scores_path(CHUNKS[0].name)).write_bytes(left)
    assert finished_chunks(run, CHUNKS, "r") == []
    data = scores("r")
    assert commit_scores(run, CHUNKS[0], "r", data) == counts(data)
    assert finished_chunks(run, CHUNKS, "r") == [counts(data)]


def test_scores_of_chunks_that_are_no_part_of_the_run_are_left_out(tmp_path: Path) -> None:
    run = Location.parse(tmp_path)
    for chunk in CHUNKS:
        commit_scores(run, chunk, "r", scores("r"))
    assert finished_chunks(run, CHUNKS[1:], "r") == [counts(scores("r"), CHUNKS[1])]
