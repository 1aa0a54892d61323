"""Captions of deleted images leave a caption sidecar, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.ingests import without_ray
from support.trees import png, write

from uniad_ray.archive.deletion import DeletionChoice, delete_images
from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import SidecarError
from uniad_ray.perception.captions.base import Answer
from uniad_ray.perception.captions.table import CaptionTable, CaptionTableConfig
from uniad_ray.perception.missing import Missing
from uniad_ray.pipelines.caption.rows import answer_row, caption_table
from uniad_ray.sidecars.caption_files import delete_captions, finish_captions
from uniad_ray.sidecars.captions import adopt_caption_plan, caption_path, caption_plan, read_caption_sidecar


def test_captions_of_deleted_images_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        write(tmp_path / f"source/{number}.png", png(number))
    without_ray(monkeypatch)(tmp_path / "source", tmp_path / "archive", category="part")
    archive, sidecar = (Location.parse(tmp_path / name) for name in ("archive", "captions"))
    plan = caption_plan("server", {"model": "m"}, "?", (), None)
    adopt_caption_plan(sidecar, plan)
    work = list(chunks(read_manifest(archive)))
    keys = {}
    for chunk in work:
        own = read_chunk(archive, chunk, columns=["row_key", "source_uri"]).to_pylist()
        keys |= {row["source_uri"].rpartition("/")[2]: row["row_key"] for row in own}
        rows = [answer_row(row["row_key"], Answer(row["source_uri"], tokens=2), 1, plan) for row in own]
        data = encode_table(dataset_schema("caption_sidecar"), caption_table(rows))
        (sidecar / caption_path(chunk.name)).write_bytes(data)
    before = finish_captions(plan, archive.uri, read_manifest(archive).digest, sidecar, work)
    assert delete_captions(sidecar, archive) == 0
    assert read_caption_sidecar(sidecar) == before
    choice = DeletionChoice(names=("0.png", "1.png", "2.png"))
    delete_images(archive.uri, choice, deleted_by="ann", reason="wish")
    assert delete_captions(sidecar, archive) == 3
    after = read_caption_sidecar(sidecar)
    assert (after.images, after.tokens, len(after.files)) == (3, 6, len(work) - 1)
    table = CaptionTable("caption", CaptionTableConfig(kind="table", source=sidecar.uri))
    texts = dict(zip(keys, table.captions(list(keys.values()), [], "?"), strict=True))
    assert [name for name, text in texts.items() if isinstance(text, Missing)] == ["0.png", "1.png", "2.png"]
    assert delete_captions(sidecar, archive) == 0
    with pytest.raises(SidecarError, match="name its own archive"):
        delete_captions(sidecar, Location.parse(tmp_path / "elsewhere"))
