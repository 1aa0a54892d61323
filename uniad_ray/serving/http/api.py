"""Operations that score images, list categories and bundles, and report health."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Optional, Protocol

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ImageError
from uniad_ray.pipelines.cluster.metrics import NoMetrics, Recorder
from uniad_ray.scoring.bundles.versions import BundleVersion
from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.serving.auth.keys import AccessKey, KeyRing
from uniad_ray.serving.auth.rate_limits import RateLimiter
from uniad_ray.serving.http.catalogue import Catalogue
from uniad_ray.serving.http.images import SentImage, read_images
from uniad_ray.serving.http.openapi import SCORE_EXAMPLE, problems, score_body
from uniad_ray.serving.http.problems import ProblemError
from uniad_ray.serving.http.references import read_reference
from uniad_ray.serving.http.schemas import (
    BundleVersions,
    CategoryList,
    CategorySummary,
    HealthResponse,
    ImageResponse,
    MapForm,
    ReadyResponse,
    ScoreResponse,
    image_response,
)
from uniad_ray.serving.settings import ServeSettings

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_ALWAYS = ("internal-error", "method-not-allowed")
_WITH_KEY = ("not-authenticated", "not-allowed", *_ALWAYS)

Category = Annotated[str, Path(min_length=1, max_length=200, examples=["trays"])]


class Backend(Protocol):
    """Interface to the scoring replicas."""

    async def score(self, category: str, data: bytes, *, with_map: bool, nearest: int) -> OnlineVerdict | UnusableImage:
        """Score one image.

        Args:
            category: Category of the image.
            data: The encoded file.
            with_map: Whether to return the anomaly map.
            nearest: Number of nearest normal images to return.

        Raises:
            ProblemError: `overloaded`, `bundle-unusable`, `store-unavailable` or `internal-error`.
        """
        ...

    async def check(self) -> dict[str, Any]:
        """Score the reference images of the loaded bundles; return `checked` and `error`."""
        ...

    async def status(self) -> list[dict[str, Any]]:
        """Return the status of each category that a replica has loaded."""
        ...


class Endpoint:
    """State shared by the operations."""

    def __init__(
        self,
        settings: ServeSettings,
        backend: Backend,
        metrics: Recorder | None = None,
        tracer: Optional["Tracer"] = None,
    ) -> None:
        """Read the keys.

        Args:
            settings: Settings of the endpoint.
            backend: Interface to the scoring replicas.
            metrics: Records requests; None records nothing.
            tracer: Traces requests and their images; None traces nothing.

        Raises:
            ConfigError: The keys cannot be read.
        """
        self.settings = settings
        self.backend = backend
        self.metrics = metrics or NoMetrics()
        self.tracer = tracer
        self.keys = KeyRing(settings.keys, refresh_seconds=settings.refresh_seconds)
        self.limiter = RateLimiter()
        self.catalogue = Catalogue(settings.bundles, refresh_seconds=settings.refresh_seconds)
        self._inside = 0
        self._bytes_inside = 0

    async def identify(self, request: Request) -> AccessKey:
        """Find the key of a request; a coroutine, because FastAPI would run a function in a thread."""
        key = self.keys.identify(request.headers.get("authorization"), request.headers.get("x-api-key"))
        request.state.key = key.name
        return key

    async def score(
        self, request: Request, key: AccessKey, category: str, form: MapForm, nearest: int
    ) -> ScoreResponse:
        """Score the images of a request.

        Raises:
            NotAllowedError: The key does not allow it.
            ProblemError: The request is invalid, or cannot be served.
        """
        key.require("score", category)
        await self.catalogue.require(category)
        with self._room_for(request):
            return await self._score_request(request, key, category, form, nearest)

    @contextmanager
    def _room_for(self, request: Request) -> Iterator[None]:
        """Reserve the bytes of a body before reading it."""
        declared = request.headers.get("content-length", "")
        most = self.settings.limits.request_bytes
        wanted = min(int(declared[:20]), most) if declared.isdecimal() else most
        if self._bytes_inside and self._bytes_inside + wanted > self.settings.limits.bytes_inside:
            raise ProblemError("overloaded", "too many requests are being read; try again", retry_after=1)
        self._bytes_inside += wanted
        try:
            yield
        finally:
            self._bytes_inside -= wanted

    async def _score_request(
        self, request: Request, key: AccessKey, category: str, form: MapForm, nearest: int
    ) -> ScoreResponse:
        try:
            async with asyncio.timeout(self.settings.limits.seconds):
                try:
                    async with asyncio.timeout(self.settings.limits.seconds / 2):
                        images = await read_images(request, self.settings)
                except TimeoutError as error:
                    raise ProblemError("timed-out", "the body arrived too slowly; send smaller images") from error
                wait = self.limiter.take(key.name, len(images), key.images_a_minute)
                if wait:
                    raise ProblemError(
                        "too-many-requests",
                        f"the rate limit of the key is {key.images_a_minute:g} images per minute; try again later",
                        retry_after=wait,
                    )
                scored = await self._score_all(category, images, form, nearest)
        except TimeoutError as error:
            raise ProblemError(
                "deadline-exceeded",
                f"no verdict within {self.settings.limits.seconds:g} seconds; try again",
                retry_after=1,
            ) from error
        if all(image.status == "error" for image in scored):
            errors = [{"where": image.image, **image.error.model_dump()} for image in scored if image.error]
            raise ProblemError("unusable-image", errors[0]["detail"], errors=errors)
        return ScoreResponse(request_id=request.state.request_id, category=category, images=scored)

    async def _score_all(
        self, category: str, images: list[SentImage], form: MapForm, nearest: int
    ) -> list[ImageResponse]:
        most = 4 * self.settings.replicas.queued_images
        if self._inside + len(images) > max(most, self.settings.limits.images):
            raise ProblemError("overloaded", "too many images are being scored; try again", retry_after=1)
        self._inside += len(images)
        self.metrics.set("uniad_ray_images_inside", self._inside)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._score_one(category, image, form, nearest)) for image in images]
        except* ProblemError as errors:
            raise _first(errors) from None
        finally:
            self._inside -= len(images)
            self.metrics.set("uniad_ray_images_inside", self._inside)
        found = [task.result() for task in tasks]
        for image in found:
            self.metrics.count("uniad_ray_request_images", category=category, decision=image.decision or "error")
        return found

    def _span(self, category: str, image: str) -> AbstractContextManager[object]:
        if self.tracer is None:
            return nullcontext()
        attributes = {"uniad_ray.category": category, "uniad_ray.image": image[:200]}
        return self.tracer.start_as_current_span("score image", attributes=attributes)

    async def _score_one(self, category: str, image: SentImage, form: MapForm, nearest: int) -> ImageResponse:
        data = image.data
        if isinstance(data, Location):
            try:
                data = await asyncio.to_thread(read_reference, data, self.settings.limits.image_bytes)
            except ImageError as error:
                return image_response(image.name, UnusableImage(error.kind, str(error)), form)
        with self._span(category, image.name):
            found = await self.backend.score(category, data, with_map=form != "none", nearest=nearest)
        if form == "none":
            return image_response(image.name, found, form)
        # Compressing a map takes milliseconds: too long for the event loop.
        return await asyncio.to_thread(image_response, image.name, found, form)


def score_operations(endpoint: Endpoint) -> APIRouter:
    """Build the routes for scoring, listing and health."""
    router = APIRouter()
    Key = Annotated[AccessKey, Depends(endpoint.identify)]  # noqa: N806

    @router.post(
        "/v1/categories/{category}/score",
        summary="Score images of a category",
        openapi_extra={"requestBody": score_body(endpoint.settings.limits.images)},
        response_model=ScoreResponse,
        responses={
            200: SCORE_EXAMPLE,
            **problems(
                (
                    *_WITH_KEY,
                    "unknown-category",
                    "timed-out",
                    "too-large",
                    "unsupported-media-type",
                    "invalid-request",
                    "unusable-image",
                    "too-many-requests",
                    "store-unavailable",
                    "bundle-unusable",
                    "overloaded",
                    "deadline-exceeded",
                )
            ),
        },
    )
    async def score(
        request: Request,
        key: Key,
        category: Category,
        anomaly_map: Annotated[MapForm, Query(alias="map", description="Form of the anomaly map.")] = "none",
        nearest: Annotated[int, Query(ge=0, le=10, description="Number of nearest normal images to return.")] = 0,
    ) -> Response:
        found = await endpoint.score(request, key, category, anomaly_map, nearest)
        # Returning the model itself would make FastAPI validate it again.
        return Response(found.model_dump_json(), media_type="application/json")

    @router.get("/v1/categories", summary="List categories", responses=problems((*_WITH_KEY, "store-unavailable")))
    async def categories(key: Key) -> CategoryList:
        names = await endpoint.catalogue.categories()
        return CategoryList(categories=[CategorySummary(category=name) for name in names if key.covers(name)])

    @router.get("/v1/bundles", summary="List bundle versions", responses=problems((*_WITH_KEY, "store-unavailable")))
    async def bundles(key: Key) -> BundleVersions:
        versions: tuple[BundleVersion, ...] = await endpoint.catalogue.versions()
        return BundleVersions(
            bundles=[version for version in versions if key.covers(version.category)],
            loaded=[entry for entry in await endpoint.backend.status() if key.covers(entry["category"])],
        )

    @router.get("/healthz", summary="Check that the process responds", responses=problems(_ALWAYS))
    async def healthz() -> HealthResponse:
        return HealthResponse()

    @router.get(
        "/readyz", summary="Check that images can be scored", responses=problems((*_ALWAYS, "not-ready", "overloaded"))
    )
    async def readyz() -> ReadyResponse:
        found = await endpoint.backend.check()
        if found["error"] is not None:
            raise ProblemError("not-ready", found["error"], retry_after=10)
        return ReadyResponse(checked=found["checked"])

    return router


def _first(errors: BaseExceptionGroup[ProblemError]) -> ProblemError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
