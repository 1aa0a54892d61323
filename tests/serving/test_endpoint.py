"""The endpoint with real Serve: category eviction, new bundles under load, key rotation."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support.endpoint import Client, Load, Response, agrees, endpoint, png, verdicts, wait_for, write_bundle
from support.s3_server import S3Server

from uniad_ray.archive.stores.location import Location
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.serving.auth.keys import hash_key

CATEGORIES = ("lid", "part")
KEY = "a-key-of-this-test"


@dataclass
class Served:
    """A running endpoint whose replica keeps one category.

    Attributes:
        root: Root of its bundles.
        keys: Its key file.
        client: Client whose key allows everything.
        versions: Published version by category.
    """

    root: Path
    keys: Path
    client: Client
    versions: dict[str, str]

    def loaded(self, category: str) -> dict[str, object]:
        """Return the replica's status of a category; empty if it is not loaded."""
        entries = self.client.get("/v1/bundles").document["loaded"]
        return next((entry for entry in entries if entry["category"] == category), {})


@pytest.fixture(scope="module")
def served(serve_port: int, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("endpoint")
    root, keys = folder / "bundles", folder / "keys.yaml"
    versions = {
        category: write_bundle(root, category, f"experts.patch.config.memory_size={size}").version
        for category, size in zip(CATEGORIES, (150, 200), strict=True)
    }
    write_keys(keys, all=KEY)
    settings = {
        "bundles": str(root),
        "keys": str(keys),
        "reference_prefixes": [f"s3://{s3_server.bucket}/images/"],
        "replicas": {"categories": 1, "threads": 1, "device": "cpu"},
        "batch": {"images": 4},
        "refresh_seconds": 0.3,
    }
    with endpoint(serve_port, settings) as client:
        client.headers = {"authorization": f"Bearer {KEY}"}
        yield Served(root, keys, client, versions)


def write_keys(path: Path, **keys: str) -> None:
    entries = [{"name": name, "sha256": hash_key(key), "images_a_minute": 1e9} for name, key in keys.items()]
    path.write_text(yaml.safe_dump({"keys": entries}))


def test_categories_evict_each_other(served: Served) -> None:
    images = [png(number) for number in range(4)]
    wanted = {name: verdicts(served.root, name, served.versions[name], images) for name in CATEGORIES}
    # Two fits on the same images must differ: the test tells them apart by score.
    assert wanted["lid"][1].score != wanted["part"][1].score
    for number, image in enumerate(images):
        for category in CATEGORIES:
            response = served.client.score(category, image)
            assert agrees(response.image, wanted[category][number]), response.body
            assert response.image["lineage"]["bundle_version"] == served.versions[category]
    assert served.loaded("lid") == {}
    assert {verdict.decision for verdict in wanted["part"]} == {"normal", "anomalous"}


def test_maps_as_png_and_float16(served: Served) -> None:
    (verdict,) = verdicts(served.root, "part", served.versions["part"], [png(1)])
    assert verdict.anomaly_map is not None
    assert served.client.score("part", png(1)).image["map"] is None
    numbers = served.client.score("part", png(1), "?map=float16").image["map"]
    found = np.frombuffer(zlib.decompress(base64.b64decode(numbers["data"])), "<f2")
    np.testing.assert_allclose(found.reshape(numbers["height"], numbers["width"]), verdict.anomaly_map, rtol=2e-3)
    picture = served.client.score("part", png(1), "?map=png").image["map"]
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["data"]))), dtype=float)
    values = picture["low"] + grey / 255 * (picture["high"] - picture["low"])
    np.testing.assert_allclose(values, verdict.anomaly_map, atol=(picture["high"] - picture["low"]) / 255)


def test_images_and_references_in_one_request(served: Served, s3_server: S3Server) -> None:
    place = Location.parse(f"s3://{s3_server.bucket}/images/one.png")
    place.write_bytes(png(1))
    wanted = verdicts(served.root, "part", served.versions["part"], [png(0), png(1)])
    body = {"images": [{"base64": base64.b64encode(png(0)).decode()}, {"uri": place.uri}]}
    response = served.client.score("part", json.dumps(body).encode(), kind="application/json")
    first, second = response.document["images"]
    assert agrees(first, wanted[0])
    assert agrees(second, wanted[1])
    body = {"images": [{"uri": f"s3://{s3_server.bucket}/bundles/one.png"}]}
    served.client.score("part", json.dumps(body).encode(), kind="application/json").problem("not-allowed")


def test_response_keeps_request_id(served: Served) -> None:
    asked = served.client.request("GET", "/healthz", x_request_id="mine-1")
    assert asked.header("x-request-id") == "mine-1"
    response = served.client.score("part", png(0))
    assert response.header("x-request-id") == response.document["request_id"]
    assert re.fullmatch(r"[\w.-]{16,64}", response.document["request_id"])
    refused = served.client.score("none", png(0))
    assert refused.problem("unknown-category")["request_id"] == refused.header("x-request-id")


def test_new_bundle_under_load_fails_no_request(served: Served) -> None:
    images = {number: png(number) for number in range(8)}
    old = served.versions["part"]

    def send(number: int) -> tuple[int, Response]:
        chosen = number % len(images)
        return chosen, served.client.score("part", images[chosen])

    with Load(send, clients=3) as load:
        load.wait_for_more(20)
        new = write_bundle(served.root, "part", "experts.patch.config.memory_size=90").version
        served.versions["part"] = new
        wait_for(lambda: served.loaded("part").get("version") == new)
        load.wait_for_more(20)
    assert load.errors == []
    wanted = {version: verdicts(served.root, "part", version, list(images.values())) for version in (old, new)}
    seen = []
    for number, response in load.answers:
        assert response.status == 200, response.body
        version = response.image["lineage"]["bundle_version"]
        assert agrees(response.image, wanted[version][number]), (version, response.body)
        seen.append(version)
    assert set(seen) == {old, new}
    assert served.client.score("part", png(0)).image["lineage"]["bundle_version"] == new


@pytest.mark.parametrize("fault", ["corrupt", "other scores"])
def test_bad_bundle_is_refused(served: Served, fault: str) -> None:
    (wanted,) = verdicts(served.root, "part", served.versions["part"], [png(1)])
    assert served.client.score("part", png(1)).status == 200
    store = BundleStore(str(served.root))
    fitted = store.load("part", served.versions["part"])
    files = dict(fitted.files)
    if fault == "other scores":
        document = json.loads(files["reference.json"])
        document["raw"]["patch"] = [value + 1 for value in document["raw"]["patch"]]
        files["reference.json"] = json.dumps(document).encode()
    else:
        files["more"] = b"makes it another version"
    bad = store.write("part", fitted.manifest.config, fitted.manifest.calibration, fitted.manifest.lineage, files)
    store.publish("part", bad.version)
    if fault == "corrupt":
        place = store.folder("part", bad.version) / "experts/patch.safetensors"
        place.write_bytes(place.read_bytes()[:-1] + b"?")
    try:
        wait_for(lambda: served.loaded("part").get("refused") is not None)
        refused = served.loaded("part")["refused"]
        assert isinstance(refused, dict)
        assert refused["version"] == bad.version
        says = "checksum mismatch" if fault == "corrupt" else "gives the reference images"
        assert says in refused["reason"]
        assert agrees(served.client.score("part", png(1)).image, wanted)
        assert served.client.get("/readyz").status == 200
    finally:
        store.publish("part", served.versions["part"])
    wait_for(lambda: served.loaded("part").get("refused") is None)


def test_keys_rotate_without_restart(served: Served) -> None:
    write_keys(served.keys, all=KEY, next="another-key")
    other = Client(served.client.port, {"x-api-key": "another-key"})
    wait_for(lambda: other.score("part", png(0)).status == 200)
    write_keys(served.keys, next="another-key")
    try:
        wait_for(lambda: served.client.score("part", png(0)).status == 401)
        served.client.score("part", png(0)).problem("not-authenticated")
        assert other.score("part", png(0)).status == 200
    finally:
        write_keys(served.keys, all=KEY)
        wait_for(lambda: served.client.score("part", png(0)).status == 200)
