"""Access log without images and keys, and the headers of every response."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniad_ray.pipelines.cluster.metrics import NoMetrics, Recorder
from uniad_ray.serving.http.problems import MEDIA_TYPE, ProblemError

_logger = logging.getLogger(__name__)
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
}


class RequestLog:
    """Middleware that gives each request an id, each response security headers, and the log one line per request."""

    def __init__(self, app: ASGIApp, *, adds_id: bool = True, metrics: Recorder | None = None) -> None:
        """Wrap an application.

        Args:
            app: The application.
            adds_id: Whether to add the id to responses as a header; Ray Serve's proxy adds it itself.
            metrics: Records the requests; None records nothing.
        """
        self._app = app
        self._metrics = metrics or NoMetrics()
        self._adds_id = adds_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                if self._adds_id:
                    headers["X-Request-Id"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            _logger.exception("request %s failed", request_id)
            if status:
                raise
            problem = ProblemError("internal-error", "find the reason in the logs by request id")
            document = problem.document(scope["path"], request_id).model_dump(mode="json")
            await JSONResponse(document, problem.status, media_type=MEDIA_TYPE)(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - started
            operation = operation_of(scope)
            self._metrics.count("uniad_ray_requests", operation=operation, status=str(status))
            self._metrics.observe("uniad_ray_request_seconds", seconds, operation=operation)
            line = {
                "request_id": request_id,
                "key": state.get("key"),
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "milliseconds": round(1000 * seconds, 1),
            }
            _logger.info("%s", json.dumps(line))


def operation_of(scope: Scope) -> str:
    """Method and route of a request, such as `POST /v1/categories/{category}/score`; anything else is `none`.

    The number of operations is bounded, unlike that of paths.
    """
    route = scope.get("route")
    path, methods = getattr(route, "path", None), getattr(route, "methods", None)
    # The route of another method is found, too, and a client may send any word as method.
    is_known = path is not None and (methods is None or scope["method"] in methods)
    return f"{scope['method']} {path}" if is_known else "none"


def request_id_of(request: Request) -> str:
    """Return the id of a request; empty outside `RequestLog`."""
    return str(getattr(request.state, "request_id", ""))
