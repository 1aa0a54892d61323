"""Mutated image files, decoded and scored through the API: a verdict or a documented problem, never a crash."""

from __future__ import annotations

import io
import resource
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.endpoint import png, write_bundle
from support.image_bytes import encode, oriented, png_chunk, raw_png, raw_tiff
from support.replica_backend import ReplicaInProcess

from uniad_ray.serving.asgi import create_api
from uniad_ray.serving.http.api import Endpoint
from uniad_ray.serving.http.problems import MEDIA_TYPE, TYPES
from uniad_ray.serving.settings import ServeSettings

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
FILES = {
    **{kind: encode(PIXELS, kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")},
    "grey": encode(PIXELS[..., 0], "PNG"),
    "16 bits": raw_png(8, 8, 16, 0, np.zeros((8, 16), dtype=np.uint8)),
    "CMYK": encode(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"),
    "palette": encode(Image.fromarray(PIXELS).convert("P"), "PNG"),
    "transparent": encode(Image.fromarray(PIXELS).convert("RGBA"), "PNG"),
    "turned": encode(Image.fromarray(PIXELS), "JPEG", exif=oriented(6)),
    "strip": raw_tiff(np.zeros((8, 8), dtype=np.uint8)),
}


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"x\x9c\x03\x00\x00\x00\x00\x01") + png_chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("mutated") / "bundles"
    write_bundle(root, "part")
    chosen = ServeSettings.model_validate({"bundles": str(root), "limits": {"image_pixels": 1_000_000}})
    api = create_api(Endpoint(chosen, ReplicaInProcess(chosen)))
    with TestClient(api, raise_server_exceptions=False) as asking:
        assert score(asking, png(0)) == "ok"
        yield asking


def score(client: TestClient, data: bytes) -> str:
    """Send an image; return `ok`, or the kind of the image error or problem."""
    response = client.post("/v1/categories/part/score", content=data, headers={"content-type": "image/png"})
    if response.status_code == 200:
        (image,) = response.json()["images"]
        assert image["decision"] in ("normal", "anomalous")
        assert np.isfinite(image["score"])
        return str(image["status"])
    document = response.json()
    assert response.headers["content-type"] == MEDIA_TYPE
    kind = str(document["type"]).removeprefix("/problems/")
    assert kind in TYPES - {"internal-error"}
    return str(document["errors"][0]["kind"]) if kind == "unusable-image" else kind


@pytest.mark.parametrize("name", FILES)
def test_all_formats_are_scored(client: TestClient, name: str) -> None:
    assert score(client, FILES[name]) == "ok"


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    data=st.data(),
    name=st.sampled_from(sorted(FILES)),
    cut=st.none() | st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=12),
    inserted=st.binary(max_size=40),
)
def test_mutated_files_are_scored_or_refused(
    client: TestClient,
    data: st.DataObject,
    name: str,
    cut: float | None,
    flips: list[tuple[float, int]],
    inserted: bytes,
) -> None:
    content = bytearray(FILES[name])
    # Headers determine allocations: half of the changes go there.
    reach = data.draw(st.sampled_from([64, len(content)]))
    for place, bits in flips:
        content[int(place * min(reach, len(content)))] ^= bits
    at = data.draw(st.integers(0, min(reach, len(content))))
    content[at:at] = inserted
    if cut is not None:
        del content[int(cut * len(content)) :]
    assert score(client, bytes(content)) in {
        "ok",
        "empty",
        "not_an_image",
        "truncated",
        "too_large",
        "unsupported",
        "not_scorable",
    }


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bomb(60_000, 60_000), "too_large"),
        (bomb(2**31 - 1, 2**31 - 1), "too_large"),
        (bomb(1001, 1000), "too_large"),
        (bomb(100, 100), "truncated"),
        (b"", "empty"),
        (b"GIF89a", "truncated"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    ],
)
def test_sizes_are_bounded_before_decoding(client: TestClient, data: bytes, kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert score(client, data) == kind
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10, "KiB"


def test_animated_image_is_first_frame_or_refused(client: TestClient) -> None:
    sink = io.BytesIO()
    pictures = [Image.fromarray(np.full((64, 64, 3), level, dtype=np.uint8)) for level in (100, 130)]
    pictures[0].save(sink, "GIF", save_all=True, append_images=pictures[1:])
    assert score(client, sink.getvalue()) in ("ok", "unsupported")
