"""Traces of requests, in memory and at a collector."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from pydantic import ValidationError
from support.scoring_backend import FakeBackend, grey

from uniad_ray.archive.stores.location import Location
from uniad_ray.serving.asgi import create_api
from uniad_ray.serving.http.api import Endpoint
from uniad_ray.serving.http.problems import ProblemError
from uniad_ray.serving.http.tracing import make_tracer
from uniad_ray.serving.settings import ServeSettings

SCORE = "/v1/categories/lids/score"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def client(tmp_path: Path, spans: InMemorySpanExporter, backend: FakeBackend) -> TestClient:
    pointer = {"category": "lids", "version": "1", "digest": "0" * 64}
    (Location.parse(tmp_path) / "lids/current.json").write_json(pointer)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    endpoint = Endpoint(ServeSettings(bundles=str(tmp_path)), backend, tracer=provider.get_tracer("test"))
    return TestClient(create_api(endpoint), raise_server_exceptions=False)


def post(client: TestClient, **headers: str) -> int:
    return client.post(SCORE, content=grey(9), headers={"content-type": "image/jpeg", **headers}).status_code


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


def test_request_and_image_are_one_trace_with_the_request_id(client: TestClient, spans: InMemorySpanExporter) -> None:
    assert post(client, **{"x-request-id": "line-7"}) == 200
    found = by_name(spans)
    request, image = found["POST /v1/categories/{category}/score"], found["score image"]
    assert dict(request.attributes or {}) == {
        "uniad_ray.request_id": "line-7",
        "http.request.method": "POST",
        "url.path": SCORE,
        "http.response.status_code": 200,
    }
    assert (image.attributes or {})["uniad_ray.category"] == "lids"
    assert request.context is not None
    assert image.parent is not None
    assert image.parent.span_id == request.context.span_id


def test_trace_of_the_caller_is_continued(client: TestClient, spans: InMemorySpanExporter) -> None:
    post(client, traceparent=CALLER)
    contexts = [span.context for span in spans.get_finished_spans()]
    assert {f"{context.trace_id:032x}" for context in contexts if context} == {CALLER.split("-")[1]}


def test_server_errors_are_marked(client: TestClient, spans: InMemorySpanExporter, backend: FakeBackend) -> None:
    backend.problem = ProblemError("overloaded", "busy")
    assert post(client) == 503
    span = by_name(spans)["POST /v1/categories/{category}/score"]
    assert span.status.status_code is StatusCode.ERROR
    client.get("/nowhere")
    unknown = by_name(spans)["none"]
    assert unknown.status.status_code is StatusCode.UNSET
    assert (unknown.attributes or {})["http.response.status_code"] == 404


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """URL of a collector, and the bodies that it received."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", bodies
        server.shutdown()
        thread.join()


def test_spans_arrive_at_a_collector(collector: tuple[str, list[bytes]]) -> None:
    url, bodies = collector
    tracer = make_tracer(url)
    with tracer.start_as_current_span("one", attributes={"uniad_ray.request_id": "r"}):
        pass
    tracer.span_processor.force_flush()
    (body,) = bodies
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    names = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
    assert names["service.name"] == "uniad_ray"
    assert [span.name for span in resource.scope_spans[0].spans] == ["one"]


def test_address_must_be_a_url() -> None:
    assert ServeSettings(bundles="b", traces="http://collector:4318/v1/traces").traces
    with pytest.raises(ValidationError):
        ServeSettings(bundles="b", traces="collector:4318")
