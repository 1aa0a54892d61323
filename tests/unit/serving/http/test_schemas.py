"""Responses of a gateway for results of a replica."""

from __future__ import annotations

import base64
import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from uniad_ray.scoring.bundles.gallery import NearestNormal
from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.scoring.scorer import Verdict
from uniad_ray.serving.http.schemas import MapForm, image_response, map_document

MAP = np.array([[0.0, 1.0, 2.0], [4.0, 8.0, 51.0]], np.float32)


def found(score: float, anomaly_map: np.ndarray | None = None) -> OnlineVerdict:
    return OnlineVerdict(
        verdict=Verdict(score, 2.0, {"patch": 0.5, "text": 0.1}, {"patch": 6.0, "text": -1.0}, anomaly_map, ("why",)),
        left_out={"objects": "no text within 2 seconds"},
        nearest=(NearestNormal("good/1.png", 0.25, b"jpeg"),),
        bundle_version="v1",
        bundle_digest="d" * 64,
        code_version="0.1.0",
        image_sha256="a" * 64,
    )


@pytest.mark.parametrize(("score", "decision"), [(2.0, "normal"), (2.5, "anomalous")])
def test_response_holds_whole_verdict(score: float, decision: str) -> None:
    assert image_response("a.png", found(score), "none").model_dump(mode="json") == {
        "image": "a.png",
        "status": "ok",
        "decision": decision,
        "score": score,
        "threshold": 2.0,
        "review_threshold": None,
        "experts": [
            {"expert": "patch", "raw": 0.5, "calibrated": 6.0},
            {"expert": "text", "raw": 0.1, "calibrated": -1.0},
        ],
        "left_out": [{"expert": "objects", "reason": "no text within 2 seconds"}],
        "reasons": ["why"],
        "map": None,
        "region": None,
        "picture": None,
        "nearest": [{"image": "good/1.png", "distance": 0.25, "thumbnail": base64.b64encode(b"jpeg").decode()}],
        "lineage": {
            "bundle_version": "v1",
            "bundle_digest": "d" * 64,
            "code_version": "0.1.0",
            "image_sha256": "a" * 64,
        },
        "error": None,
    }


def test_line_around_the_region_is_sent_as_png() -> None:
    sent = image_response("a.png", replace(found(1.0), region=b"png"), "png")
    assert base64.b64decode(str(sent.region)) == b"png"


def test_picture_is_sent_with_a_map_for_display() -> None:
    with_picture = replace(found(1.0), picture=b"jpeg")
    assert base64.b64decode(str(image_response("a.png", with_picture, "png").picture)) == b"jpeg"
    assert image_response("a.png", with_picture, "float16").picture is None


def test_image_without_verdict_has_only_its_error() -> None:
    response = image_response("b", UnusableImage("truncated", "JPEG: ends early"), "png").model_dump(
        exclude_defaults=True
    )
    assert response == {"image": "b", "status": "error", "error": {"kind": "truncated", "detail": "JPEG: ends early"}}


def pixels(form: MapForm) -> np.ndarray:
    response = image_response("a", found(1.0, MAP), form).map
    assert response is not None
    assert (response.form, response.height, response.width, response.low, response.high) == (form, 2, 3, 0.0, 51.0)
    data = base64.b64decode(response.data)
    if form == "png":
        return np.asarray(Image.open(io.BytesIO(data)))
    return np.frombuffer(zlib.decompress(data), "<f2").reshape(2, 3)


def test_map_is_encoded_as_png_or_float16() -> None:
    # 255 levels for 51 units: five a unit.
    assert pixels("png").tolist() == [[0, 5, 10], [20, 40, 255]]
    np.testing.assert_array_equal(pixels("float16"), MAP.astype(np.float16))
    assert map_document(MAP, "none") is None
