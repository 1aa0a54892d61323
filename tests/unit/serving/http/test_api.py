from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fastapi.testclient import TestClient
from PIL import Image
from support.recorded import Recorded
from support.scoring_backend import FakeBackend

from uniad_ray.archive.stores.location import Location
from uniad_ray.serving.asgi import create_api
from uniad_ray.serving.auth.keys import hash_key
from uniad_ray.serving.http.api import Endpoint
from uniad_ray.serving.http.problems import MEDIA_TYPE, TYPES, ProblemError
from uniad_ray.serving.settings import RequestLimits, ServeSettings

SCORE = "/v1/categories/lids/score"


def png(grey: int = 100, side: int = 16) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((side, side), grey, dtype=np.uint8)).save(sink, "PNG")
    return sink.getvalue()


@dataclass
class Served:
    client: TestClient
    backend: FakeBackend
    endpoint: Endpoint


def serve(tmp_path: Path, **changes: Any) -> Served:
    """An endpoint for the categories `lids` and `trays`, with nothing in their bundles."""
    for category in ("lids", "trays"):
        pointer = {"category": category, "version": "1", "digest": "0" * 64}
        (Location.parse(tmp_path / "bundles") / category / "current.json").write_json(pointer)
    settings = ServeSettings.model_validate({"bundles": str(tmp_path / "bundles"), **changes})
    backend = FakeBackend()
    endpoint = Endpoint(settings, backend)
    return Served(TestClient(create_api(endpoint), raise_server_exceptions=False), backend, endpoint)


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return serve(tmp_path)


def problem(response: Any, kind: str) -> dict[str, Any]:
    """Check that a response is a problem document of a kind, and return it."""
    document = response.json()
    assert document["type"] == f"/problems/{kind}", document
    assert kind in TYPES
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.status_code == document["status"]
    assert document["request_id"] == response.headers["x-request-id"]
    return dict(document)


def test_body_with_one_image_of_any_type(served: Served) -> None:
    for kind in ("image/png", "image/jpeg", "application/octet-stream"):
        response = served.client.post(SCORE, content=png(90), headers={"content-type": kind})
        assert response.status_code == 200
        (image,) = response.json()["images"]
        assert image["status"] == "ok"
        assert image["score"] == 90
        assert image["reasons"] == ["lids"]
        assert image["map"] is None
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_multipart_images_keep_order_and_names(served: Served) -> None:
    files = [("image", (f"{grey}.png", png(grey), "image/png")) for grey in (10, 30, 20)]
    response = served.client.post(f"{SCORE}?map=png", files=files)
    images = response.json()["images"]
    assert [image["image"] for image in images] == ["10.png", "30.png", "20.png"]
    assert [image["score"] for image in images] == [10, 30, 20]
    assert [(image["map"]["form"], image["map"]["low"], image["map"]["high"]) for image in images] == [
        ("png", grey, grey) for grey in (10, 30, 20)
    ]


def test_nearest_normal_images_on_request(served: Served) -> None:
    image = {"content": png(), "headers": {"content-type": "image/png"}}
    (plain,) = served.client.post(SCORE, **image).json()["images"]
    assert plain["nearest"] == []
    (asked,) = served.client.post(f"{SCORE}?nearest=2", **image).json()["images"]
    assert [entry["image"] for entry in asked["nearest"]] == ["good/0.jpg", "good/1.jpg"]
    assert base64.b64decode(asked["nearest"][0]["thumbnail"]).startswith(b"\xff\xd8\xff")
    for number in (-1, 11, "x"):
        problem(served.client.post(f"{SCORE}?nearest={number}", **image), "invalid-request")


def test_json_with_base64(served: Served) -> None:
    encoded = base64.b64encode(png(50)).decode()
    body = {"images": [{"base64": encoded}, {"base64": encoded, "name": "left camera"}]}
    images = served.client.post(SCORE, json=body).json()["images"]
    assert [image["image"] for image in images] == ["0", "left camera"]
    assert {image["score"] for image in images} == {50}


def test_json_with_references(tmp_path: Path, s3_prefix: str) -> None:
    served = serve(tmp_path, reference_prefixes=[f"{s3_prefix}/"])
    (Location.parse(s3_prefix) / "a.png").write_bytes(png(70))
    body = {"images": [{"uri": f"{s3_prefix}/a.png"}, {"uri": f"{s3_prefix}/none.png"}]}
    found, missing = served.client.post(SCORE, json=body).json()["images"]
    assert found["image"] == f"{s3_prefix}/a.png"
    assert found["score"] == 70
    assert missing["status"] == "error"
    assert missing["error"]["kind"] == "not_found"
    refused = served.client.post(SCORE, json={"images": [{"uri": "s3://other/a.png"}]})
    problem(refused, "not-allowed")


def test_bad_image_fails_alone(served: Served) -> None:
    files = [("image", ("a", png(), "image/png")), ("image", ("b", b"nonsense", "image/png"))]
    good, bad = served.client.post(SCORE, files=files).json()["images"]
    assert good["status"] == "ok"
    assert bad["status"] == "error"
    assert bad["error"]["kind"] == "not_an_image"
    assert bad["decision"] is None
    alone = served.client.post(SCORE, content=b"nonsense", headers={"content-type": "image/png"})
    document = problem(alone, "unusable-image")
    assert document["errors"][0]["kind"] == "not_an_image"


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        (
            {"content": b"", "headers": {"content-type": "text/plain"}},
            "unsupported-media-type",
            "unsupported content type text/plain: send one",
        ),
        ({"content": b"x"}, "unsupported-media-type", "content type none"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, "invalid-request", "not valid JSON"),
        ({"content": b"[" * 7000, "headers": {"content-type": "application/json"}}, "invalid-request", "not valid"),
        ({"json": {}}, "invalid-request", "does not match /openapi.json"),
        ({"json": {"images": []}}, "invalid-request", "does not match"),
        ({"json": {"images": [{}]}}, "invalid-request", "does not match"),
        ({"json": {"images": [{"base64": "a", "uri": "s3://a/b"}]}}, "invalid-request", "does not match"),
        ({"json": {"images": [{"base64": "***"}]}}, "invalid-request", "images.0.base64: invalid base64"),
        ({"json": {"images": [{"base64": "aaaa"}] * 5}}, "too-large", "5 images; the limit is 4"),
        ({"files": [("image", ("a", b"x", "image/png"))] * 5}, "too-large", "at most 4 files"),
        (
            {"files": [("image", ("a", b"x", "image/png"))], "data": {"other": "1"}},
            "invalid-request",
            "no other fields",
        ),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "invalid-request", "boundary"),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            "invalid-request",
            "send at most",
        ),
        (
            {"content": b"x" * 3000, "headers": {"content-type": "image/png"}},
            "too-large",
            "3000 bytes; the limit is 2000",
        ),
        (
            {"content": b"x" * 9000, "headers": {"content-type": "image/png"}},
            "too-large",
            "9000 bytes; the limit is 8000",
        ),
    ],
)
def test_invalid_requests_are_explained(tmp_path: Path, options: dict[str, Any], kind: str, says: str) -> None:
    limits = RequestLimits(images=4, image_bytes=2000, request_bytes=8000).model_dump()
    served = serve(tmp_path, limits=limits)
    document = problem(served.client.post(SCORE, **options), kind)
    assert says in json.dumps(document)
    assert served.backend.asked == []


def test_body_of_unknown_length_is_bounded(tmp_path: Path) -> None:
    served = serve(tmp_path, limits=RequestLimits(request_bytes=8000).model_dump())
    taken = 0

    def parts() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b"x" * 1000

    problem(served.client.post(SCORE, content=parts(), headers={"content-type": "image/png"}), "too-large")


def test_slow_body_times_out(tmp_path: Path) -> None:
    served = serve(tmp_path, limits={"seconds": 0.4})
    parts = iter([{"type": "http.request", "body": png()[:20], "more_body": True}])
    sent: list[Any] = []

    async def receive() -> Any:
        for part in parts:
            return part
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": SCORE,
        "raw_path": SCORE.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"image/png")],
    }
    api = create_api(served.endpoint)
    asyncio.run(asyncio.wait_for(api(scope, receive, send), 30))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["type"] == "/problems/timed-out"
    assert served.backend.asked == []


def test_path_and_query_errors(served: Served) -> None:
    image = {"content": png(), "headers": {"content-type": "image/png"}}
    problem(served.client.post("/v1/categories/nuts/score", **image), "unknown-category")
    problem(served.client.post(f"{SCORE}?map=jpeg", **image), "invalid-request")
    problem(served.client.get("/v1/nothing"), "not-found")
    refused = served.client.get(SCORE)
    problem(refused, "method-not-allowed")
    assert refused.headers["allow"] == "POST"


def test_keys_rights_and_rates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.yaml"
    entry = {"name": "line", "sha256": hash_key("secret-key"), "categories": ["lids"], "images_a_minute": 3}
    path.write_text(yaml.safe_dump({"keys": [entry]}))
    served = serve(tmp_path, keys=str(path))
    image = {"content": png(), "headers": {"content-type": "image/png"}}
    refused = served.client.post(SCORE, **image)
    problem(refused, "not-authenticated")
    assert refused.headers["www-authenticate"] == "Bearer"
    problem(served.client.get("/v1/categories"), "not-authenticated")
    problem(served.client.get("/v1/bundles"), "not-authenticated")
    # Health checks have no key.
    assert served.client.get("/healthz").status_code == served.client.get("/readyz").status_code == 200

    allowed = {"content": png(), "headers": {"content-type": "image/png", "authorization": "Bearer secret-key"}}
    with caplog.at_level(logging.INFO, logger="uniad_ray"):
        assert served.client.post(SCORE, **allowed).status_code == 200
    assert "secret-key" not in caplog.text
    line = json.loads(caplog.records[-1].getMessage())
    assert line["key"] == "line"
    assert line["status"] == 200
    # A forbidden category looks like a missing one.
    for category in ("trays", "nuts"):
        problem(served.client.post(f"/v1/categories/{category}/score", **allowed), "not-allowed")
    names = served.client.get("/v1/categories", headers={"x-api-key": "secret-key"}).json()
    assert names == {"categories": [{"category": "lids"}]}
    for _ in range(2):
        assert served.client.post(SCORE, **allowed).status_code == 200
    limited = served.client.post(SCORE, **allowed)
    problem(limited, "too-many-requests")
    assert 1 <= int(limited.headers["retry-after"]) <= 21
    assert len(served.backend.asked) == 3


def test_backend_failures_are_problems(served: Served) -> None:
    image = {"content": png(), "headers": {"content-type": "image/png"}}
    served.backend.problem = ProblemError("overloaded", "busy", retry_after=1)
    response = served.client.post(SCORE, **image)
    problem(response, "overloaded")
    assert int(response.headers["retry-after"]) >= 1
    served.backend.problem = ProblemError("bundle-unusable", "corrupt")
    problem(served.client.post(SCORE, **image), "bundle-unusable")
    served.backend.problem = RuntimeError("a bug: secret")  # type: ignore[assignment]
    response = served.client.post(SCORE, **image)
    problem(response, "internal-error")
    assert "secret" not in response.text
    served.backend.problem = None
    assert served.client.post(SCORE, **image).status_code == 200


def test_slow_verdict_exceeds_deadline(tmp_path: Path) -> None:
    served = serve(tmp_path, limits={"seconds": 0.3})
    served.backend.seconds = 5
    image = {"content": png(), "headers": {"content-type": "image/png"}}
    problem(served.client.post(SCORE, **image), "deadline-exceeded")


def test_bodies_are_counted_before_reading(tmp_path: Path) -> None:
    served = serve(tmp_path, limits={"bytes_inside": 1024, "seconds": 20})
    served.backend.seconds = 1.0
    small = {"content": png(), "headers": {"content-type": "image/png"}}
    assert len(png()) < 512
    large = {"content": b"x" * 1000, "headers": {"content-type": "image/png"}}
    with ThreadPoolExecutor() as pool:
        first = pool.submit(served.client.post, SCORE, **small)
        while not served.backend.asked:
            time.sleep(0.01)
        refused = served.client.post(SCORE, **large)
        second = served.client.post(SCORE, **small)
        assert first.result().status_code == second.status_code == 200
    problem(refused, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    # A single request is always read, up to its own size limit.
    problem(served.client.post(SCORE, **large), "unusable-image")


def test_readiness_reports_reference_check(served: Served) -> None:
    assert served.client.get("/readyz").json() == {"status": "ready", "checked": ["lids"]}
    served.backend.error = "expert patch gives other scores"
    document = problem(served.client.get("/readyz"), "not-ready")
    assert document["detail"] == "expert patch gives other scores"
    assert served.client.get("/healthz").status_code == 200


def test_responses_have_security_headers_and_request_id(served: Served) -> None:
    for response in (served.client.get("/healthz"), served.client.get("/none"), served.client.post(SCORE)):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert len(response.headers["x-request-id"]) >= 16
    assert served.client.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for bad in ("a b", "x" * 65, "a\tb", '"'):
        assert served.client.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"] != bad


def test_openapi_describes_bodies_examples_and_errors(served: Served) -> None:
    document = served.client.get("/openapi.json").json()
    score = document["paths"]["/v1/categories/{category}/score"]["post"]
    assert {"image/png", "multipart/form-data", "application/json"} <= set(score["requestBody"]["content"])
    assert score["responses"]["200"]["content"]["application/json"]["example"]["images"][0]["decision"] == "anomalous"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status != "200":
                    assert set(response["content"]) == {MEDIA_TYPE}, (path, status)
    assert {"401", "403", "404", "405", "408", "413", "415", "422", "429", "500", "503", "504"} <= set(
        score["responses"]
    )


def test_requests_images_and_problems_are_recorded(tmp_path: Path) -> None:
    served = serve(tmp_path)
    metrics = Recorded()
    endpoint = Endpoint(served.endpoint.settings, served.backend, metrics)
    client = TestClient(create_api(endpoint), raise_server_exceptions=False)
    kind = {"content-type": "image/png"}
    assert client.post(SCORE, content=png(), headers=kind).status_code == 200
    files = [("image", ("a.png", png(), "image/png")), ("image", ("b.png", b"none", "image/png"))]
    assert client.post(SCORE, files=files).status_code == 200
    assert client.post(SCORE, content=b"none", headers=kind).status_code == 422
    assert client.get("/no/such/page").status_code == 404
    assert client.request("BREW", SCORE).status_code == 405
    operation = "POST /v1/categories/{category}/score"
    assert metrics.counted("uniad_ray_requests") == {
        **{(operation, "200"): 2, (operation, "422"): 1},
        **{("none", "404"): 1, ("none", "405"): 1},
    }
    assert metrics.counted("uniad_ray_request_images") == {("lids", "normal"): 2, ("lids", "error"): 2}
    assert metrics.counted("uniad_ray_problems") == {
        ("unusable-image",): 1,
        ("not-found",): 1,
        ("method-not-allowed",): 1,
    }
    assert list(metrics.gauges.values()) == [0]
    assert [len(values) for values in metrics.observed.values()] == [3, 2]
