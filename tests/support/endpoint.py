"""An endpoint in real Serve, with bundles that fit in a second."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from support.normal_images import DrawnNormalImages
from support.profiles import small_config

from uniad_ray.scoring.bundles.bundle import BundleManifest
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category
from uniad_ray.scoring.online_verdict import OnlineVerdict
from uniad_ray.scoring.scorer import Verdict
from uniad_ray.serving.http.problems import MEDIA_TYPE, TYPES
from uniad_ray.serving.settings import ServeSettings

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Response:
    """One response of the endpoint."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def image(self) -> dict[str, Any]:
        """The only image of a response with verdicts."""
        (image,) = self.document["images"]
        return dict(image)

    def header(self, name: str) -> str | None:
        """Returns a header that occurs at most once."""
        found = [value for key, value in self.headers if key.lower() == name]
        assert len(found) <= 1, (name, found)
        return found[0] if found else None

    def problem(self, *kinds: str) -> dict[str, Any]:
        """Checks that the response is a problem document, of one of the kinds if given."""
        document = self.document
        assert self.header("content-type") == MEDIA_TYPE
        assert document["status"] == self.status
        assert document["type"].removeprefix("/problems/") in (kinds or TYPES), document
        if self.status in (429, 503, 504):
            assert int(self.header("retry-after") or 0) >= 1
        return dict(document)


@dataclass
class Client:
    """Sends requests to an endpoint, each on a new connection."""

    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            sent = {name.replace("_", "-"): value for name, value in {**self.headers, **headers}.items()}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Response(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Response:
        return self.request("GET", path)

    def score(self, category: str, data: bytes, query: str = "", kind: str = "image/png") -> Response:
        return self.request("POST", f"/v1/categories/{category}/score{query}", data, content_type=kind)


def write_bundle(root: Path | str, category: str, *overrides: str, publish: bool = True) -> BundleManifest:
    """Fits a category on eight images, by default of 64 pixels, and writes its bundle."""
    config = small_config(*overrides)
    fitted = fit_category(DrawnNormalImages(8, size=config.decoded_size), config)
    store = BundleStore(str(root))
    lineage = {"extractors": fitted.extractors}
    manifest = store.write(category, fitted.config, fitted.calibration, lineage, fitted.files)
    if publish:
        store.publish(category, manifest.version)
    return manifest


def png(number: int) -> bytes:
    """Image file of 64 x 64 pixels, like the normal images of the fit; odd numbers have a spot."""
    pixels = np.random.default_rng(1000 + number).normal(120, 8, (64, 64, 3))
    if number % 2:
        pixels[20:40, 30:50] = 250
    sink = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def verdicts(root: Path | str, category: str, version: str, images: Sequence[bytes]) -> list[Verdict]:
    """Scores images in a plain loop."""
    scorer = BundleStore(str(root)).load(category, version).scorer()
    found = [scorer.score_encoded(["x"], [image])[0] for image in images]
    assert all(isinstance(verdict, Verdict) for verdict in found)
    return found  # type: ignore[return-value]


def agrees(image: Mapping[str, Any], verdict: Verdict) -> bool:
    """Returns whether a response agrees with a verdict."""
    return (
        image["status"] == "ok"
        and image["decision"] == verdict.decision
        and abs(image["score"] - verdict.score) <= TOLERANCE * max(1.0, abs(verdict.score))
        and image["threshold"] == verdict.threshold
        and image["reasons"] == list(verdict.reasons)
    )


def same_verdict(found: object, verdict: Verdict) -> bool:
    """Returns whether a replica's result agrees with a verdict."""
    return (
        isinstance(found, OnlineVerdict)
        and found.verdict.decision == verdict.decision
        and abs(found.verdict.score - verdict.score) <= TOLERANCE * max(1.0, abs(verdict.score))
        and found.verdict.threshold == verdict.threshold
        and found.verdict.reasons == verdict.reasons
    )


@contextmanager
def endpoint(port: int, settings: Mapping[str, Any], name: str = "uniad_ray") -> Iterator[Client]:
    """Runs an endpoint in the running Serve within a `with` block."""
    from ray import serve

    from uniad_ray.serving.app import build_app

    serve.run(build_app(ServeSettings.model_validate(settings)), name=name, route_prefix="/")
    try:
        yield Client(port)
    finally:
        serve.delete(name)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits until a condition holds."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "the condition did not hold in time"
        time.sleep(0.1)


class Load:
    """Clients that send requests within a `with` block.

    Attributes:
        answers: Pairs of what was sent and the response, unordered.
        errors: Broken and hanging connections.
    """

    def __init__(self, send: Callable[[int], tuple[Any, Response]], clients: int) -> None:
        self.answers: list[tuple[Any, Response]] = []
        self.errors: list[BaseException] = []
        self._send = send
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), "a request hangs"

    def wait_for_more(self, count: int) -> None:
        """Waits for a number of further responses."""
        wanted = len(self.answers) + count
        wait_for(lambda: len(self.answers) >= wanted or bool(self.errors))

    def _run(self, client: int) -> None:
        number = client
        while not self._ended.is_set():
            try:
                self.answers.append(self._send(number))
            except Exception as error:
                self.errors.append(error)
                return
            number += 7
