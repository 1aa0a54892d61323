from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from support.chat_server import ChatServer, chat_server
from support.profiles import small_config

from uniad_ray.config.loading import validate
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Extractor, Perception
from uniad_ray.perception.captions.captioners import CAPTION_PROMPT, CaptionDescriber, CaptionDescriberConfig
from uniad_ray.perception.captions.table import _read_table
from uniad_ray.scoring.factory import build_pipeline
from uniad_ray.sidecars.fingerprints import feature_fingerprints

KEY = "sk-not-to-be-seen"
IMAGES = np.random.default_rng(0).integers(0, 256, size=(2, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def fake() -> Iterator[ChatServer]:
    with chat_server(lambda asked: f"sum {asked.image.sum()}") as server:
        yield server


def describer(captioner: dict[str, Any], **options: Any) -> CaptionDescriber:
    document = {"captioner": captioner, **options}
    return CaptionDescriber("caption", validate(CaptionDescriberConfig, document, where="profile p"), "cpu")


def server(url: str = "http://gpu-1/v1", **options: Any) -> dict[str, Any]:
    return {"kind": "server", "url": url, "model": "org/model", "backoff": 0, **options}


def table(path: Path, *rows: tuple[str, str, str]) -> dict[str, Any]:
    keys, prompts, texts = zip(*rows, strict=True)
    pq.write_table(pa.table({"row_key": keys, "prompt": prompts, "text": texts}), path)
    _read_table.cache_clear()
    return {"kind": "table", "source": str(path)}


def test_the_prompt_is_that_of_the_paper() -> None:
    assert describer(server()).config.prompt == CAPTION_PROMPT
    assert CAPTION_PROMPT == "Describe all components and their spatial relationships in the image"


def test_server_captions_from_configuration(fake: ChatServer) -> None:
    """Builds the extractors from a profile, as fits and runs do."""
    caption = {
        "class": "uniad_ray.perception.captions.captioners:CaptionDescriber",
        "config": {"captioner": server(fake.url)},
    }
    config = small_config(f"extractors.caption={caption}")
    pipeline = build_pipeline(config, [("caption/text", "expert text")], device="cpu", check_unused=False)

    found = pipeline.extract(["a", "b"], IMAGES, frozenset({"caption/text"}))
    assert found.texts["caption/text"] == [f"sum {image.sum()}" for image in IMAGES]
    assert {asked.prompt for asked in fake.asked} == {CAPTION_PROMPT}


def test_table_captions_match_their_rows(tmp_path: Path) -> None:
    rows = [("a", CAPTION_PROMPT, "one pin"), ("b", CAPTION_PROMPT, "two pins"), ("c", CAPTION_PROMPT, "none")]
    found = describer(table(tmp_path / "captions.parquet", *rows))

    assert isinstance(found, Extractor)
    assert found.provides == CaptionDescriber.fields_of("caption", found.config) == {"caption/text"}
    assert found.extract(Perception(["b", "a"], IMAGES)) == {"caption/text": ["two pins", "one pin"]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "profile p: captioner: missing"),
        ({"captioner": {"url": "x", "api_key": KEY}}, "profile p: captioner.kind: missing"),
        ({"captioner": {"kind": "oracle", "api_key": KEY}}, "expected tags: 'server', 'table', 'vllm'"),
        ({"captioner": {"kind": "table", "sorce": "x"}}, "captioner.sorce: unknown key; allowed: kind, source"),
        ({"captioner": server(token=KEY)}, "captioner.token: unknown key; allowed: api_key_variable, backoff"),
        ({"captioner": server(), "prompts": 1}, "profile p: prompts: unknown key; allowed: captioner, prompt"),
        (
            {"captioner": {"kind": "vllm", "weights": {"url": "x"}}},
            "captioner.weights.url: unknown key; allowed: sha256, uri",
        ),
    ],
)
def test_wrong_option_is_one_line(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(CaptionDescriberConfig, document, where="profile p")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert KEY not in str(raised.value)


def test_fingerprint_does_not_depend_on_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_KEY", KEY)

    def digest(captioner: dict[str, Any], **options: Any) -> str:
        caption = {
            "class": "uniad_ray.perception.captions.captioners:CaptionDescriber",
            "config": {"captioner": captioner, **options},
        }
        config = small_config(f"extractors.caption={caption}")
        pipeline = build_pipeline(config, [("caption/text", "x")], device="cpu", check_unused=False)
        assert KEY not in f"{config.model_dump_json()} {pipeline.lineage(pipeline.provides)}"
        return feature_fingerprints(pipeline, (64, 64), {})["caption/text"]

    base = digest(server())
    assert digest(server(api_key_variable="VLM_KEY", concurrency=2)) == base
    others = [
        digest(server(), prompt="What is it?"),
        digest(server(model="other")),
        digest(server("http://gpu-2/v1")),
        digest(table(tmp_path / "c.parquet", ("a", "?", "one"))),
        digest(table(tmp_path / "c.parquet", ("a", "?", "two"))),
    ]
    assert len({base, *others}) == 6


def test_engine_weights_are_top_level_in_lineage(tmp_path: Path) -> None:
    """The bundle then rejects other weights, and the report lists them."""
    (tmp_path / "config.json").write_text("{}")
    save_file({"w": np.zeros(1, dtype=np.float32)}, tmp_path / "model.safetensors")
    lineage = describer({"kind": "vllm", "weights": {"uri": f"file:{tmp_path}"}}).lineage()

    assert lineage["weights"]["uri"] == f"file:{tmp_path}"
    assert len(lineage["weights"]["sha256"]) == 64
    assert lineage["captioner"]["kind"] == "vllm"
    assert "weights" not in lineage["captioner"]
