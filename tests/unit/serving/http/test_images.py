"""Arbitrary bytes as a request: images or a problem document, nothing else."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from uniad_ray.archive.stores.location import Location
from uniad_ray.serving.http.images import BODY_TYPES, SentImage, read_images
from uniad_ray.serving.http.problems import TYPES, ProblemError
from uniad_ray.serving.settings import RequestLimits, ServeSettings

SETTINGS = ServeSettings(
    bundles="b",
    reference_prefixes=("s3://plant/line-1/",),
    limits=RequestLimits(request_bytes=6000, image_bytes=3000, images=4),
)
MULTIPART = "multipart/form-data; boundary=edge"
PART = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'


def read(content_type: str | None, parts: Sequence[bytes], length: str | None = None) -> list[SentImage] | ProblemError:
    headers = [(b"content-type", content_type.encode("latin-1"))] if content_type is not None else []
    if length is not None:
        headers.append((b"content-length", length.encode("latin-1")))
    waiting = list(parts)

    async def receive() -> dict[str, Any]:
        if not waiting:
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": waiting.pop(0), "more_body": True}

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)
    try:
        return asyncio.run(read_images(request, SETTINGS))
    except ProblemError as problem:
        return problem


def check(found: list[SentImage] | ProblemError) -> None:
    if isinstance(found, ProblemError):
        assert found.kind in TYPES
        assert found.status < 500
        assert found.detail
        json.dumps(found.errors)
        return
    assert 1 <= len(found) <= SETTINGS.limits.images
    for image in found:
        assert len(image.name) <= 1200
        if isinstance(image.data, Location):
            assert image.data.uri.startswith(SETTINGS.reference_prefixes)
        else:
            assert len(image.data) <= SETTINGS.limits.image_bytes


def in_parts(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


bodies = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    b"--edge",
                    b"--edge--",
                    b"\r\n",
                    b"\n",
                    b"Content-Disposition: form-data",
                    b'; name="image"',
                    b'; filename="a.png"',
                    b"; filename*=utf-8''%ff",
                    b"Content-Type: image/png",
                    b"Content-Transfer-Encoding: base64",
                    b": ",
                    PART,
                    b"x" * 3500,
                ]
            ),
            st.binary(max_size=20),
        ),
        max_size=16,
    ).map(b"".join),
)
types = st.one_of(
    st.none(),
    st.sampled_from(
        [*BODY_TYPES, MULTIPART, "multipart/form-data", 'multipart/form-data; boundary="edge', "application/json"]
    ),
    st.text(st.characters(max_codepoint=255), max_size=40),
)


@given(types, bodies, st.lists(st.integers(0), max_size=4), st.one_of(st.none(), st.text("0123456789-x²", max_size=6)))
@example("image/png", b"x" * 3001, [], None)
@example("image/png", b"x" * 6001, [100], None)
@example(MULTIPART, PART * 3, [], None)
@example("application/json", b"\xff", [], "5")
@example("image/png", b"", [], "²")
@example("image/png", b"", [], "1" * 5000)
def test_arbitrary_bytes_are_images_or_problem(
    content_type: str | None, body: bytes, cuts: list[int], length: Any
) -> None:
    check(read(content_type, in_parts(body, cuts), length))


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
sources = st.fixed_dictionaries(
    {},
    optional={
        "base64": st.one_of(st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()), json_values),
        "uri": st.one_of(
            st.sampled_from(["s3://plant/line-1/a.png", "s3://plant/line-1/../a", "/etc/passwd", "s3://plant/x"]),
            st.text(max_size=30),
            st.text(max_size=10).map("s3://plant/line-1/{}".format),
            json_values,
        ),
        "name": st.one_of(st.text(max_size=300), json_values),
        "other": json_values,
    },
)


@given(st.one_of(json_values, st.fixed_dictionaries({"images": st.lists(st.one_of(sources, json_values), max_size=6)})))
def test_arbitrary_json_is_images_or_problem(document: Any) -> None:
    check(read("application/json", [json.dumps(document).encode()]))


@pytest.mark.parametrize(
    "body", [b'{"images": [{"base64": ' + b"[" * 3000, b'{"a":' * 900, b"1" * 5000, b'{"images": NaN}', b'"\\ud800"']
)
def test_pathological_json_is_problem(body: bytes) -> None:
    found = read("application/json", [body])
    assert isinstance(found, ProblemError)
    check(found)


def test_names_are_truncated_and_never_used_as_paths() -> None:
    name = b"../" * 200 + b"a.png"
    body = PART.replace(b"a.png", name) + b"data\r\n--edge--\r\n"
    found = read(MULTIPART, [body])
    assert isinstance(found, list)
    assert found[0].data == b"data"
    assert len(found[0].name) == 255


def test_client_disconnect_is_problem() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    headers = [(b"content-type", b"image/png")]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)
    with pytest.raises(ProblemError, match="ended early"):
        asyncio.run(read_images(request, SETTINGS))
