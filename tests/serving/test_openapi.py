"""Schemathesis sends valid and invalid requests; every response must match the OpenAPI document."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis.specs.openapi.checks import positive_data_acceptance
from support.endpoint import write_bundle
from support.runs import ScoredImage, write_archive, write_run
from support.scoring_backend import FakeBackend

from uniad_ray.serving.asgi import create_api
from uniad_ray.serving.auth.keys import hash_key
from uniad_ray.serving.http.api import Endpoint
from uniad_ray.serving.http.problems import MEDIA_TYPE
from uniad_ray.serving.settings import RequestLimits, ServeSettings

KEY = "a-key"


def picture() -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 90, dtype=np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def with_pictures(case: schemathesis.Case) -> schemathesis.Case:
    """Replace random strings with a real image to get requests past the decoder."""
    body = case.body
    if isinstance(body, bytes) and len(body) % 2:
        case.body = picture()
    if isinstance(body, dict) and isinstance(body.get("images"), list):
        for image in body["images"]:
            if isinstance(image, dict) and isinstance(image.get("base64"), str):
                image["base64"] = base64.b64encode(picture()).decode()
    return case


@pytest.fixture(scope="module")
def api_schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("openapi")
    write_bundle(root / "bundles", "trays")
    rows = [ScoredImage(f"{number}.png", picture(), number / 4, category="trays") for number in range(4)]
    write_run(root / "night", write_archive(root / "archive", rows), rows)
    entry = {"name": "all", "sha256": hash_key(KEY), "rights": ["score", "runs", "review"], "images_a_minute": 1e9}
    (root / "keys.yaml").write_text(yaml.safe_dump({"keys": [entry]}))
    chosen = {
        "bundles": str(root / "bundles"),
        "runs": {"night": str(root / "night")},
        "keys": str(root / "keys.yaml"),
        "limits": RequestLimits(image_bytes=4000, request_bytes=10_000, images=3).model_dump(),
    }
    endpoint = Endpoint(ServeSettings.model_validate(chosen), FakeBackend())
    return schemathesis.openapi.from_asgi("/openapi.json", create_api(endpoint))


def examine(operation: Any, check: Callable[[schemathesis.Case], None], examples: int) -> None:
    """Check an operation with generated requests.

    `schema.parametrize` does the same, but does not work with this version of pytest.
    """

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), derandomize=True, deadline=None)
    @given(case=operation.as_strategy())
    def run(case: schemathesis.Case) -> None:
        check(case)

    run()


def test_responses_match_openapi_document(api_schema: Any) -> None:
    statuses: dict[str, set[int]] = {}

    def check(case: schemathesis.Case) -> None:
        response = with_pictures(case).call(headers={"Authorization": f"Bearer {KEY}"})
        # The document cannot say which bytes are an image, so random ones may be refused.
        is_no_image = response.status_code == 422 and response.json()["type"].endswith("unusable-image")
        case.validate_response(response, excluded_checks=[positive_data_acceptance] if is_no_image else [])
        assert response.status_code != 500
        if response.status_code >= 400:
            assert response.headers["content-type"][0].startswith(MEDIA_TYPE)
        statuses.setdefault(f"{case.operation.method.upper()} {case.operation.path}", set()).add(response.status_code)

    for found in api_schema.get_all_operations():
        examine(found.ok(), check, examples=60)
    # Some generated requests succeeded.
    assert 200 in statuses["POST /v1/categories/{category}/score"]
    assert all(200 in statuses[f"GET {path}"] for path in ("/v1/categories", "/v1/bundles", "/healthz", "/readyz"))


def test_wrong_key_sees_only_health(api_schema: Any) -> None:
    def check(case: schemathesis.Case) -> None:
        assert case.call(headers={"Authorization": "Bearer of-others"}).status_code in (401, 422)

    for found in api_schema.get_all_operations():
        if found.ok().path not in ("/healthz", "/readyz"):
            examine(found.ok(), check, examples=3)
