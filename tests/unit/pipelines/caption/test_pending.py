"""Chunks of a caption job that are not done."""

from __future__ import annotations

from pathlib import Path

import pytest

from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.perception.captions.base import Answer
from uniad_ray.pipelines.caption.job import pending_chunks
from uniad_ray.pipelines.caption.rows import answer_row, caption_table
from uniad_ray.sidecars.captions import caption_path, caption_plan

GOOD, SILENT, ABSENT = (Chunk("images/shard.parquet", group, 1, "part", "train") for group in range(3))


@pytest.mark.parametrize(("retry_errors", "expected"), [(False, [ABSENT]), (True, [SILENT, ABSENT])])
def test_retry_also_asks_about_images_that_were_never_asked_about(
    tmp_path: Path, retry_errors: bool, expected: list[Chunk]
) -> None:
    sidecar = Location.parse(str(tmp_path))
    plan = caption_plan("server", {"model": "m"}, "?", (), None)
    for chunk, answer in ((GOOD, Answer("a part")), (SILENT, Answer("", "empty", "nothing"))):
        table = caption_table([answer_row("key", answer, 1, plan)])
        (sidecar / caption_path(chunk.name)).write_bytes(encode_table(dataset_schema("caption_sidecar"), table))
    work = [GOOD, SILENT, ABSENT]
    assert pending_chunks(work, {GOOD.name, SILENT.name}, sidecar, retry_errors=retry_errors) == expected
