"""The stage `captions` in this process: one row an image, a text or the reason why there is none, and no network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.captioned import captioned_config
from support.chat_server import Asked, chat_server
from support.ingests import without_ray
from support.trees import mvtec_tree, png, write

from uniad_ray import __version__
from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.perception.features import encoders
from uniad_ray.pipelines.cluster.decoding import chunk_item, decode_chunk
from uniad_ray.pipelines.precompute.worker import StageWorker
from uniad_ray.sidecars.plan import FORMAT_VERSION, SidecarPlan
from uniad_ray.sidecars.stages import CategoryPipeline


def text_of(asked: Asked) -> str:
    """The fake model says nothing about the only wide image."""
    height, width = asked.image.shape[:2]
    return "" if width > height else f"Brightness {int(asked.image.mean()) // 20}."


def test_stage_captions_stores_texts_and_reasons_and_loads_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = mvtec_tree(tmp_path / "source/part", train=3, good=0, bad=0)
    write(part / "train/good/800.png", png(5, 40, width=90))
    write(part / "train/good/900.png", png(1)[:300])
    archive = str(tmp_path / "archive")
    without_ray(monkeypatch)(tmp_path / "source", archive)
    manifest = read_manifest(Location.parse(archive))
    work = list(chunks(manifest))
    with chat_server(text_of) as server:
        config = captioned_config(server.url, "extractors.caption.config.captioner.retries=0")
        planned = CategoryPipeline.unfitted(config, device="cpu").plan(["captions"], None)
        plan = SidecarPlan(
            format_version=FORMAT_VERSION,
            code_version=__version__,
            archive=archive,
            archive_digest=manifest.digest,
            bundle_root=None,
            config=config,
            categories={"part": planned},
            chunks=len(work),
            images=sum(chunk.rows for chunk in work),
        )

        def refused(*_: Any) -> None:
            raise AssertionError("the stage loads a network")

        monkeypatch.setattr(encoders, "_shared_network", refused)
        out = str(tmp_path / "sidecar")
        document = plan.model_dump(mode="json", by_alias=True)
        worker = StageWorker("captions", document, out, is_last=True, device="cpu", threads=1)
        for chunk in work:
            decoded = decode_chunk(
                chunk_item(chunk),
                archive=archive,
                image_sizes={"part": planned.image_size},
                value_ranges={"part": planned.value_range},
            )
            images = decoded.pop("images")
            batch = {name: np.array([value], dtype=object) for name, value in decoded.items()} | {
                "images": images[None]
            }
            worker(batch)

    rows = [
        row
        for info in Location.parse(out).list(suffix=".parquet")
        for row in pq.read_table(io.BytesIO(info.location.read_bytes())).to_pylist()
    ]
    assert len(rows) == plan.images == 5
    assert [row["status"] for row in rows].count("error") == 1
    texts = [text for row in rows for text in row["descriptions"]]
    assert {text["field"] for text in texts} == {"caption/text"}
    assert sorted(text["text"] is None for text in texts) == [False] * 3 + [True]
    assert ["empty answer" in text["missing"] for text in texts if text["text"] is None] == [True]
