"""OpenTelemetry traces of requests: a span for each request, and one for each of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniad_ray import __version__
from uniad_ray.errors import ConfigError
from uniad_ray.serving.http.access_log import operation_of

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_SERVER_ERROR = 500


def make_tracer(url: str) -> Tracer:
    """Returns a tracer that sends its spans to a collector in batches, in a thread of its own.

    Args:
        url: The collector's URL for OTLP over HTTP.

    Raises:
        ConfigError: The exporter is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(f"traces: {error}; install the extra: pip install 'uniad-ray[traces]'") from error
    provider = TracerProvider(
        resource=Resource.create({"service.name": "uniad_ray", "service.version": __version__}), shutdown_on_exit=True
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return provider.get_tracer("uniad_ray", __version__)


class RequestTraces:
    """Middleware that traces each request; goes inside `RequestLog`, which gives the request its id.

    A request with the header `traceparent` continues the caller's trace.
    """

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        """Wrap an application."""
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request within a span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes = {
            "uniad_ray.request_id": scope["state"]["request_id"],
            "http.request.method": scope["method"],
            "url.path": scope["path"],
        }
        with self._tracer.start_as_current_span(
            scope["method"], context=extract(headers), kind=SpanKind.SERVER, attributes=attributes
        ) as span:

            async def send_with_status(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= _SERVER_ERROR:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            try:
                await self._app(scope, receive, send_with_status)
            finally:
                # The route is known only once the request was matched.
                span.update_name(operation_of(scope))
