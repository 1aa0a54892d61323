"""The HTTP API as an application without Ray: all operations, and errors as problem documents."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from uniad_ray import __version__
from uniad_ray.serving.auth.keys import AccessDeniedError, NotAuthenticatedError
from uniad_ray.serving.http.access_log import RequestLog, request_id_of
from uniad_ray.serving.http.api import Endpoint, score_operations
from uniad_ray.serving.http.problems import MEDIA_TYPE, ProblemError
from uniad_ray.serving.http.tracing import RequestTraces
from uniad_ray.serving.runs.api import run_operations
from uniad_ray.serving.web.pages import page_operations


def create_api(endpoint: Endpoint, *, adds_request_id: bool = True) -> FastAPI:
    """Build the application with all its operations.

    Args:
        endpoint: State shared by the operations.
        adds_request_id: Whether to add `X-Request-Id` to responses; Ray Serve's proxy adds it itself.
    """
    api = FastAPI(
        title="uniad_ray",
        version=__version__,
        summary="Detect structural and logical anomalies in images, with anomaly maps and reasons.",
        docs_url=None,
        redoc_url=None,
    )
    api.include_router(score_operations(endpoint))
    api.include_router(run_operations(endpoint.settings, endpoint.identify))
    api.include_router(page_operations())
    api.add_exception_handler(ProblemError, _problem_response)
    api.add_exception_handler(AccessDeniedError, _denied_response)
    api.add_exception_handler(RequestValidationError, _invalid_response)
    api.add_exception_handler(HTTPException, _http_response)
    api.state.metrics = endpoint.metrics
    if endpoint.tracer is not None:
        api.add_middleware(RequestTraces, tracer=endpoint.tracer)
    api.add_middleware(RequestLog, adds_id=adds_request_id, metrics=endpoint.metrics)
    return api


async def _problem_response(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)  # noqa: S101 - guaranteed by FastAPI
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after + 0.5)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    request.app.state.metrics.count("uniad_ray_problems", kind=error.kind)
    document = error.document(request.url.path, request_id_of(request))
    return JSONResponse(document.model_dump(mode="json"), error.status, headers, MEDIA_TYPE)


async def _denied_response(request: Request, error: Exception) -> JSONResponse:
    kind = "not-authenticated" if isinstance(error, NotAuthenticatedError) else "not-allowed"
    return await _problem_response(request, ProblemError(kind, str(error)))


async def _invalid_response(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors: list[dict[str, Any]] = [
        {"where": ".".join(str(part) for part in entry["loc"]), "what": entry["msg"]} for entry in error.errors()
    ]
    problem = ProblemError("invalid-request", "the request does not match /openapi.json; see errors", errors=errors)
    return await _problem_response(request, problem)


async def _http_response(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "invalid-request")
    response = await _problem_response(
        request, ProblemError(kind, f"{request.method} {request.url.path}: {error.detail}")
    )
    response.headers.update(error.headers or {})
    return response
