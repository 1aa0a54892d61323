"""Experts that need texts, from request to response: the model responds, is slow, fails, or is not configured.

The model is a fake server with OpenAI's chat API. Ray Serve is not involved; see `support.replica_backend`.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from support.captioned import brightness_text, images, write_captioned
from support.chat_server import Asked, ChatServer, chat_server
from support.replica_backend import ReplicaInProcess

from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.scorer import Verdict
from uniad_ray.serving.asgi import create_api
from uniad_ray.serving.http.api import Endpoint
from uniad_ray.serving.settings import ServeSettings


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server(brightness_text) as running:
        yield running


@pytest.fixture(scope="module")
def root(server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    write_captioned(root, server.url)
    return root


@pytest.fixture(autouse=True)
def restored(server: ChatServer) -> Iterator[None]:
    yield
    server.answer = brightness_text


def client(root: Path, **engine: Any) -> TestClient:
    settings = ServeSettings.model_validate({"bundles": str(root), "engine": engine})
    return TestClient(create_api(Endpoint(settings, ReplicaInProcess(settings))))


def encoded(index: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(images()[index]).save(sink, "PNG")
    return sink.getvalue()


def score(asking: Any, index: int = 2) -> dict[str, Any]:
    headers = {"content-type": "image/png"}
    response = asking.post("/v1/categories/part/score?nearest=2", content=encoded(index), headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.json()["images"][0])


def of_scorer(root: Path, only: list[str] | None = None) -> Verdict:
    found = BundleStore(str(root)).load("part").scorer(only=only).score_encoded(["x"], [encoded(2)])[0]
    assert isinstance(found, Verdict)
    return found


def test_verdict_of_all_experts_with_model(root: Path) -> None:
    with client(root, deadline_seconds=60) as asking:
        image = score(asking)
    wanted = of_scorer(root)
    assert image["left_out"] == []
    assert {entry["expert"]: entry["raw"] for entry in image["experts"]} == pytest.approx(dict(wanted.raw), abs=1e-5)
    assert (image["score"], image["threshold"]) == pytest.approx((wanted.score, wanted.threshold), abs=1e-5)
    assert image["decision"] == wanted.decision
    assert len(image["nearest"]) == 2


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ({"kind": "none"}, "no engine is configured"),
        ({"url": "http://127.0.0.1:9/v1"}, "the captioning model does not respond"),
    ],
)
def test_verdict_without_model_names_left_out_experts(root: Path, engine: dict[str, Any], reason: str) -> None:
    with client(root, **engine) as asking:
        image = score(asking)
        (loaded,) = asking.get("/v1/bundles").json()["loaded"]
    wanted = of_scorer(root, ["patch"])
    assert image["left_out"] == [{"expert": "text", "reason": reason}]
    assert [entry["expert"] for entry in image["experts"]] == ["patch"]
    assert (image["score"], image["threshold"]) == pytest.approx((wanted.score, wanted.threshold), abs=1e-5)
    assert loaded["experts"] == ["patch", "text"]
    assert loaded["no_texts"] == (reason if engine.get("kind") == "none" else None)


def test_verdict_without_texts_after_deadline(root: Path, server: ChatServer) -> None:
    scored = threading.Event()

    def never_before_the_verdict(asked: Asked) -> str:
        assert scored.wait(60)
        return brightness_text(asked)

    with client(root, deadline_seconds=0.5) as asking:
        score(asking)  # loads the bundle
        server.answer = never_before_the_verdict
        image = score(asking)
        scored.set()
    assert [entry["expert"] for entry in image["left_out"]] == ["text"]
    assert image["score"] == pytest.approx(of_scorer(root, ["patch"]).score, abs=1e-5)


def test_unavailable_model_does_not_block_loading(root: Path, server: ChatServer) -> None:
    server.answer = lambda _: (503, b"{}")
    with client(root, deadline_seconds=60) as asking:
        assert score(asking)["left_out"][0]["expert"] == "text"
        assert asking.get("/readyz").status_code == 200
        server.answer = brightness_text
        assert score(asking)["left_out"] == []
