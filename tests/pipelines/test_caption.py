"""Captions once, from a fake chat server; then fit and score without any model. One empty answer costs one row."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.captioned import caption_options
from support.chat_server import Asked, ChatServer, chat_server
from support.profiles import small_config
from support.trees import mvtec_tree, png, write

from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import CaptionError, ConfigError, SidecarError
from uniad_ray.perception.captions.captioners import CAPTION_PROMPT
from uniad_ray.pipelines.caption.engines import Question
from uniad_ray.pipelines.caption.job import CaptionReport, caption
from uniad_ray.pipelines.cluster.sizing import Workers
from uniad_ray.pipelines.fit.job import FitReport, fit
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.precompute.job import precompute
from uniad_ray.pipelines.score.job import ScoreReport, score
from uniad_ray.sidecars.captions import read_caption_sidecar

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]
ONE = Workers(count=1)
OPTIONS = {"retries": 0, "timeout": 30}


class Factory(NamedTuple):
    """A category with captions of all images but one, its bundle and a run."""

    root: Path
    archive: str
    report: CaptionReport
    asked: list[Asked]
    fitted: FitReport
    run: ScoreReport


def text_of(asked: Asked) -> str:
    """What the fake model says: the brightness of the image; nothing about one of them."""
    return "" if is_silent(asked.image) else f"Brightness {int(asked.image.mean()) // 20}. One part."


def is_silent(image: np.ndarray) -> bool:
    """The image without an answer is the only wide one."""
    return bool(image.shape[1] > image.shape[0])


def question(server: ChatServer, **changes: Any) -> Question:
    return Question("server", "fake", server.url, **{"options": OPTIONS, **changes})


def config(captions: Path) -> FitConfig:
    """Patch memory, and text similarity on stored captions."""
    return config_with({"kind": "table", "source": str(captions)})


def config_with(captioner: dict[str, Any]) -> FitConfig:
    """The same with another source of the captions."""
    return small_config(*caption_options(captioner), "calibration.folds=2")


def rows(root: Path, folder: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for info in Location.parse(str(root)).list(suffix=".parquet"):
        if info.relative.startswith(f"{folder}/"):
            found += pq.read_table(io.BytesIO(info.location.read_bytes())).to_pylist()
    return found


def stored(root: Path, folder: str) -> dict[str, bytes]:
    every = Location.parse(str(root)).list(suffix=".parquet")
    return {info.relative: info.location.read_bytes() for info in every if info.relative.startswith(f"{folder}/")}


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server(text_of) as running:
        yield running


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory, server: ChatServer, ray_cluster: None) -> Factory:  # noqa: ARG001
    root = tmp_path_factory.mktemp("captioned")
    part = mvtec_tree(root / "source/part", train=10, good=2, bad=2)
    write(part / "test/good/800.png", png(5, 40, width=90))
    write(part / "test/good/900.png", png(1)[:300])
    archive = str(root / "archive")
    ingest(str(root / "source"), archive, limits=ShardLimits(rows=8, row_group_rows=4))
    report = caption(archive, str(root / "captions"), question(server), workers=ONE)
    asked = list(server.asked)
    server.answer = lambda _: (503, b"off")  # from here on, there is no model
    fitted = fit(archive, str(root / "bundles"), config(root / "captions"))
    run = score(archive, str(root / "bundles"), str(root / "run"), workers=ONE)
    assert len(server.asked) == len(asked)
    server.answer = text_of
    return Factory(root, archive, report, asked, fitted, run)


def test_every_image_has_a_row_and_one_empty_answer_costs_one(factory: Factory) -> None:
    assert (factory.report.images, factory.report.errors) == (16, {"empty": 1, "truncated": 1})
    found = rows(factory.root / "captions", "captions")
    images = {row["row_key"]: Path(row["source_uri"]).name for row in rows(factory.root / "run", "scores")}
    assert {row["row_key"] for row in found} == images.keys()
    by_image = {images[row["row_key"]]: row for row in found if row["status"] == "error"}
    assert by_image.keys() == {"800.png", "900.png"}
    assert (by_image["800.png"]["attempts"], by_image["900.png"]["attempts"]) == (2, 0)
    good = [row for row in found if row["status"] == "ok"]
    assert {row["prompt"] for row in good} == {CAPTION_PROMPT}
    assert all(row["text"].startswith("Brightness") and row["model"] == "fake" for row in good)


def test_model_sees_original_images(factory: Factory) -> None:
    assert {asked.image.shape for asked in factory.asked if is_silent(asked.image)} == {(40, 90, 3)}


def test_fit_and_score_need_no_model(factory: Factory) -> None:
    assert factory.fitted.failed == {}
    assert (factory.run.images, factory.run.errors) == (16, 1)
    found = rows(factory.root / "run", "scores")
    assert len({row["threshold"] for row in found}) == 1
    for row in found:
        name = Path(row["source_uri"]).name
        experts = [entry["expert"] for entry in row["experts"]]
        if name == "800.png":
            assert experts == ["patch"]
            (left_out,) = row["left_out"]
            assert left_out["expert"] == "text"
            assert "returned an empty answer" in left_out["reason"]
        elif name != "900.png":
            assert (experts, row["left_out"]) == (["patch", "text"], [])


def test_scores_with_the_model_off_have_the_same_bytes(factory: Factory, server: ChatServer, tmp_path: Path) -> None:
    bundles = str(factory.root / "bundles")
    with_model = score(factory.archive, bundles, str(tmp_path / "run"), workers=ONE)
    assert with_model.run_id == factory.run.run_id
    assert stored(tmp_path / "run", "scores") == stored(factory.root / "run", "scores")
    server.answer = lambda _: (503, b"off")
    sidecar = precompute(factory.archive, str(tmp_path / "sidecar"), config(factory.root / "captions"), bundles=None)
    assert sidecar.fields["part"]["captions"] == ("caption/text",)
    score(factory.archive, bundles, str(tmp_path / "other"), sidecar=sidecar.sidecar, workers=ONE)
    assert stored(tmp_path / "other", "scores") == stored(factory.root / "run", "scores")
    server.answer = text_of


def test_stage_captions_asks_once_and_a_fit_from_it_asks_nobody(
    factory: Factory, server: ChatServer, tmp_path: Path
) -> None:
    live = config_with({"kind": "server", "url": server.url, "model": "fake", **OPTIONS})
    before = len(server.asked)
    sidecar = precompute(
        factory.archive, str(tmp_path / "sidecar"), live, stages=["captions"], workers={"captions": ONE}
    )
    asked = len(server.asked) - before
    assert sidecar.fields == {"part": {"captions": ("caption/text",)}}
    rows = [
        row
        for path, data in stored(tmp_path / "sidecar", "captions").items()
        if path.endswith(".parquet")
        for row in pq.read_table(io.BytesIO(data)).to_pylist()
    ]
    assert len(rows) == sidecar.images
    texts = [text for row in rows for text in row["descriptions"]]
    assert [text["field"] for text in texts] == ["caption/text"] * (sidecar.images - sidecar.errors) != []
    lacking = [text for text in texts if text["text"] is None]
    assert ["empty answer" in text["missing"] for text in lacking] == [True]
    assert asked >= len(texts)

    server.answer = lambda _: (503, b"off")
    fitted = fit(factory.archive, str(tmp_path / "bundles"), live, sidecar=sidecar.sidecar)
    server.answer = text_of
    assert not fitted.failed
    assert len(server.asked) == before + asked


def test_captions_resume_and_retry_only_errors(factory: Factory, server: ChatServer, tmp_path: Path) -> None:
    out = tmp_path / "captions"
    for path, data in stored(factory.root / "captions", "captions").items():
        (Location.parse(str(out)) / path).write_bytes(data)
    first = next(iter(sorted(stored(out, "captions"))))
    (out / first).unlink()
    before = len(server.asked)
    resumed = caption(factory.archive, str(out), question(server), workers=ONE)
    assert resumed.skipped_chunks == len(stored(out, "captions")) - 1
    assert 0 < len(server.asked) - before <= 5  # the images of one chunk, one of them twice
    assert resumed.errors == factory.report.errors

    before = len(server.asked)
    server.answer = lambda asked: "A wide part." if is_silent(asked.image) else "never asked"
    repaired = caption(factory.archive, str(out), question(server), retry_errors=True, workers=ONE)
    server.answer = text_of
    assert repaired.errors == {"truncated": 1}
    assert len(server.asked) - before == 1
    texts = [row["text"] for row in rows(out, "captions")]
    assert texts.count("A wide part.") == 1
    assert "never asked" not in texts


def test_another_model_or_prompt_is_another_sidecar(factory: Factory, server: ChatServer) -> None:
    out = str(factory.root / "captions")
    with pytest.raises(SidecarError, match=r"has captions of another prompt \(fake\); use a new --out"):
        caption(factory.archive, out, question(server, prompt="What is it?"))
    with pytest.raises(SidecarError, match="another model"):
        caption(factory.archive, out, Question("server", "other", server.url))


def test_structured_answers_are_parsed(factory: Factory, server: ChatServer, tmp_path: Path) -> None:
    good = json.dumps({"objects": [{"class": "bolt", "count": 1, "positions": ["top left"]}]})
    server.answer = lambda asked: "no JSON" if is_silent(asked.image) else good
    found = question(server, prompt="structured", classes=("bolt", "nut"))
    report = caption(factory.archive, str(tmp_path / "captions"), found, workers=ONE)
    server.answer = text_of
    assert report.errors == {"schema": 1, "truncated": 1}
    objects = [row["objects"] for row in rows(tmp_path / "captions", "captions") if row["status"] == "ok"]
    assert objects == [[{"class": "bolt", "count": 1, "positions": ["top left"]}]] * 14
    sent = server.asked[-1].document["response_format"]["json_schema"]["schema"]
    assert sent["properties"]["objects"]["items"]["properties"]["class"] == {"enum": ["bolt", "nut"]}


def test_unusable_options_say_what_to_do(factory: Factory, server: ChatServer, tmp_path: Path) -> None:
    out = str(tmp_path / "captions")
    with pytest.raises(ConfigError, match="needs the classes of the objects; add --classes"):
        caption(factory.archive, out, question(server, prompt="structured"))
    with pytest.raises(ConfigError, match=r"vLLM, which is not installed here; run pip install .*or use a server"):
        caption(factory.archive, out, Question("vllm", str(tmp_path)))
    with pytest.raises(ConfigError, match="engine none writes no captions"):
        caption(factory.archive, out, Question("none"))
    server.answer = lambda _: (503, b"off")
    with pytest.raises(CaptionError, match="is busy or failing"):
        caption(factory.archive, out, question(server), workers=ONE)
    server.answer = text_of
    with pytest.raises(SidecarError, match="not finished; repeat the `uniad-ray caption` command"):
        read_caption_sidecar(Location.parse(out))
