"""Operations on finished runs: browse images, preview thresholds, mark wrong decisions."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal, ParamSpec, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from uniad_ray.serving.auth.keys import AccessKey
from uniad_ray.serving.http.images import bounded_body, readable
from uniad_ray.serving.http.openapi import problems
from uniad_ray.serving.http.problems import ProblemError
from uniad_ray.serving.http.schemas import AnomalyMap
from uniad_ray.serving.runs.browser import RunBrowser
from uniad_ray.serving.runs.category_scores import Decision, MarkFilter, Order, RowFilter, Status
from uniad_ray.serving.runs.review import store_marks
from uniad_ray.serving.runs.schemas import (
    MarkRequest,
    MarkResponse,
    RunImagePage,
    RunList,
    RunPartPage,
    StoredMark,
    ThresholdResponse,
    mark_schema,
)
from uniad_ray.serving.runs.views import image_page, list_runs, map_response, part_page, threshold_response
from uniad_ray.serving.settings import ServeSettings

MAX_BODY_BYTES: Final = 1 << 20
MAX_LIMIT: Final = 200
_THREADS: Final = 8
_KINDS: Final = (
    "not-authenticated",
    "not-allowed",
    "not-found",
    "method-not-allowed",
    "invalid-request",
    "internal-error",
    "store-unavailable",
    "deadline-exceeded",
)
_CACHED: Final = {"Cache-Control": "private, max-age=600", "Vary": "Authorization, X-API-Key"}
"""Pictures of a finished run never change."""

_JPEG: Final[dict[str, Any]] = {
    "description": "JPEG picture.",
    "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
}
_MARKS_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": mark_schema(),
            "example": {
                "marks": [{"row_key": "3ea2e3f5cc0558bb7f8925d88dee8476", "category": "trays", "mark": "false_alarm"}]
            },
        }
    },
}

ResultT = TypeVar("ResultT")
Arguments = ParamSpec("Arguments")
RunName = Annotated[str, Path(min_length=1, max_length=200, examples=["run"])]
RowKey = Annotated[str, Path(min_length=1, max_length=200)]
CategoryName = Annotated[str, Query(min_length=1, max_length=200, examples=["trays"])]
Number = Annotated[float | None, Query(allow_inf_nan=False)]


class _Work:
    """A separate thread pool: browsing runs does not delay scoring requests."""

    def __init__(self, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="runs")
        self._seconds = seconds

    async def run(
        self, function: Callable[Arguments, ResultT], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> ResultT:
        try:
            async with asyncio.timeout(self._seconds):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))
        except TimeoutError as error:
            raise ProblemError(
                "deadline-exceeded",
                f"the run could not be read within {self._seconds:g} seconds; try again",
                retry_after=5,
            ) from error


def run_operations(settings: ServeSettings, identify: Callable[[Request], Awaitable[AccessKey]]) -> APIRouter:
    """Build the routes for runs.

    Args:
        settings: Settings of the endpoint.
        identify: Finds the key of a request.
    """
    router = APIRouter(prefix="/v1/runs")
    browser = RunBrowser(settings.runs)
    work = _Work(settings.limits.seconds)
    Key = Annotated[AccessKey, Depends(identify)]  # noqa: N806

    @router.get("", summary="List runs", responses=problems(kind for kind in _KINDS if kind != "not-found"))
    async def runs(key: Key) -> RunList:
        key.require("runs")
        return await work.run(list_runs, browser, key)

    @router.get("/{run}/images", summary="Page through the images of a run", responses=problems(_KINDS))
    async def images(
        key: Key,
        run: RunName,
        category: CategoryName,
        decision: Annotated[Decision | None, Query(description="Decision at the requested threshold.")] = None,
        mark: MarkFilter | None = None,
        status: Status | None = None,
        min_score: Number = None,
        max_score: Number = None,
        threshold: Number = None,
        order: Order = "highest",
        offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 24,
    ) -> RunImagePage:
        key.require("runs", category)
        asked = RowFilter(decision, mark, status, min_score, max_score, threshold, order)
        return await work.run(image_page, browser, run, category, asked, offset, limit)

    @router.get("/{run}/parts", summary="List the verdicts of parts", responses=problems(_KINDS))
    async def parts(
        key: Key,
        run: RunName,
        serial: Annotated[str | None, Query(max_length=1000, description="Only the part with this serial.")] = None,
        decision: Decision | Literal["review", "undecided"] | None = None,
        offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 24,
    ) -> RunPartPage:
        key.require("runs")
        return await work.run(
            part_page, browser, run, key, serial=serial, decision=decision, offset=offset, limit=limit
        )

    @router.get("/{run}/threshold", summary="Preview a threshold", responses=problems(_KINDS))
    async def what_if(key: Key, run: RunName, category: CategoryName, threshold: Number = None) -> ThresholdResponse:
        key.require("runs", category)
        return await work.run(threshold_response, browser, run, category, threshold)

    @router.get(
        "/{run}/images/{row_key}/thumbnail",
        summary="Get a thumbnail of an image",
        response_class=Response,
        responses={200: _JPEG, **problems((*_KINDS, "unusable-image"))},
    )
    async def thumbnail(key: Key, run: RunName, row_key: RowKey, category: CategoryName) -> Response:
        key.require("runs", category)
        data = await work.run(lambda: browser.thumbnail(browser.category(run, category), row_key))
        return Response(data, media_type="image/jpeg", headers=_CACHED)

    @router.get(
        "/{run}/images/{row_key}/image",
        summary="Get a large picture of an image",
        response_class=Response,
        responses={200: _JPEG, **problems((*_KINDS, "unusable-image"))},
    )
    async def image(key: Key, run: RunName, row_key: RowKey, category: CategoryName) -> Response:
        key.require("runs", category)
        data = await work.run(lambda: browser.image(browser.category(run, category), row_key))
        return Response(data, media_type="image/jpeg", headers=_CACHED)

    @router.get(
        "/{run}/images/{row_key}/map", summary="Get the stored anomaly map of an image", responses=problems(_KINDS)
    )
    async def anomaly_map(key: Key, run: RunName, row_key: RowKey, category: CategoryName) -> AnomalyMap:
        key.require("runs", category)
        return await work.run(map_response, browser, run, category, row_key)

    @router.post(
        "/{run}/marks",
        summary="Mark false alarms and misses",
        openapi_extra={"requestBody": _MARKS_BODY},
        responses=problems((*_KINDS, "timed-out", "too-large", "unsupported-media-type")),
    )
    async def mark(request: Request, key: Key, run: RunName) -> MarkResponse:
        key.require("review")
        asked = await _read_marks(request, settings.limits.seconds)
        for category in {entry.category for entry in asked.marks}:
            key.require("review", category)
        stored = await work.run(store_marks, browser, run, asked.marks, key.name)
        return MarkResponse(marks=[StoredMark(**asdict(entry)) for entry in stored])

    return router


async def _read_marks(request: Request, seconds: float) -> MarkRequest:
    # CSRF: a page of another site can send forms and plain text from a reviewer's browser, but not JSON.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ProblemError(
            "unsupported-media-type", f"unsupported content type {kind or 'none'}: send application/json"
        )
    try:
        async with asyncio.timeout(seconds):
            body = b"".join([part async for part in bounded_body(request, MAX_BODY_BYTES)])
    except TimeoutError as error:
        raise ProblemError("timed-out", "the body arrived too slowly; try again") from error
    try:
        return MarkRequest.model_validate(json.loads(body))
    except ValidationError as error:
        raise ProblemError(
            "invalid-request", "the body does not match /openapi.json; see errors", errors=readable(error)
        ) from error
    except (ValueError, RecursionError) as error:
        raise ProblemError("invalid-request", "the body is not valid JSON") from error
