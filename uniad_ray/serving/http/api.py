"""The operations that score images, and those that say what can be scored."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ImageError
from uniad_ray.scoring.bundles.versions import BundleVersion
from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.serving.auth.keys import AccessKey, KeyRing
from uniad_ray.serving.auth.rate_limits import RateLimiter
from uniad_ray.serving.http.catalogue import Catalogue
from uniad_ray.serving.http.images import SentImage, read_images
from uniad_ray.serving.http.openapi import SCORE_BODY, SCORE_EXAMPLE, problems
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

_ALWAYS = ("internal-error", "method-not-allowed")
_WITH_KEY = ("not-authenticated", "not-allowed", *_ALWAYS)

Category = Annotated[str, Path(min_length=1, max_length=200, examples=["trays"])]


class Backend(Protocol):
    """Whoever scores."""

    async def score(self, category: str, data: bytes, *, with_map: bool, nearest: int) -> OnlineVerdict | UnusableImage:
        """Scores one image.

        Args:
            category: Its category.
            data: The encoded file.
            with_map: Whether the verdict has its map.
            nearest: How many of the nearest normal images come with it.

        Raises:
            ProblemError: `overloaded`, `bundle-unusable`, `store-unavailable` or `internal-error`.
        """
        ...

    async def check(self) -> dict[str, Any]:
        """Scores the reference images of the loaded bundles: `checked` and `error`."""
        ...

    async def status(self) -> list[dict[str, Any]]:
        """What a replica says of each loaded category."""
        ...


class Endpoint:
    """Everything that the operations share."""

    def __init__(self, settings: ServeSettings, backend: Backend) -> None:
        """Reads the keys.

        Args:
            settings: What the operator decided.
            backend: Whoever scores.

        Raises:
            ConfigError: The keys cannot be read.
        """
        self.settings = settings
        self.backend = backend
        self.keys = KeyRing(settings.keys, refresh_seconds=settings.refresh_seconds)
        self.limiter = RateLimiter()
        self.catalogue = Catalogue(settings.bundles, refresh_seconds=settings.refresh_seconds)
        self._inside = 0
        self._bytes_inside = 0

    async def identify(self, request: Request) -> AccessKey:
        """Finds the key of a request; a coroutine, since FastAPI gives everything else a thread."""
        key = self.keys.identify(request.headers.get("authorization"), request.headers.get("x-api-key"))
        request.state.key = key.name
        return key

    async def score(
        self, request: Request, key: AccessKey, category: str, form: MapForm, nearest: int
    ) -> ScoreResponse:
        """Scores the images of a request.

        Raises:
            NotAllowedError: The key is not good for it.
            ProblemError: Whatever else is wrong with it.
        """
        key.require("score", category)
        await self.catalogue.require(category)
        with self._room_for(request):
            return await self._score_request(request, key, category, form, nearest)

    @contextmanager
    def _room_for(self, request: Request) -> Iterator[None]:
        """Counts the bytes of a body before any of it is read."""
        declared = request.headers.get("content-length", "")
        most = self.settings.limits.request_bytes
        wanted = min(int(declared[:20]), most) if declared.isdecimal() else most
        if self._bytes_inside and self._bytes_inside + wanted > self.settings.limits.bytes_inside:
            raise ProblemError("overloaded", "too many bodies are being read already; try again", retry_after=1)
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
                    raise ProblemError("timed-out", "the body came too slowly; send smaller images") from error
                wait = self.limiter.take(key.name, len(images), key.images_a_minute)
                if wait:
                    raise ProblemError(
                        "too-many-requests",
                        f"the key may send {key.images_a_minute:g} images a minute",
                        retry_after=wait,
                    )
                answers = await self._score_all(category, images, form, nearest)
        except TimeoutError as error:
            raise ProblemError(
                "deadline-exceeded", f"no verdict within {self.settings.limits.seconds:g} seconds", retry_after=1
            ) from error
        if all(answer.status == "error" for answer in answers):
            errors = [{"where": answer.image, **answer.error.model_dump()} for answer in answers if answer.error]
            raise ProblemError("unusable-image", errors[0]["detail"], errors=errors)
        return ScoreResponse(request_id=request.state.request_id, category=category, images=answers)

    async def _score_all(
        self, category: str, images: list[SentImage], form: MapForm, nearest: int
    ) -> list[ImageResponse]:
        most = 4 * self.settings.replicas.queued_images
        if self._inside + len(images) > max(most, self.settings.limits.images):
            raise ProblemError("overloaded", "too many images are inside already; try again", retry_after=1)
        self._inside += len(images)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._score_one(category, image, form, nearest)) for image in images]
        except* ProblemError as errors:
            raise _first(errors) from None
        finally:
            self._inside -= len(images)
        return [task.result() for task in tasks]

    async def _score_one(self, category: str, image: SentImage, form: MapForm, nearest: int) -> ImageResponse:
        data = image.data
        if isinstance(data, Location):
            try:
                data = await asyncio.to_thread(read_reference, data, self.settings.limits.image_bytes)
            except ImageError as error:
                return image_response(image.name, UnusableImage(error.kind, str(error)), form)
        found = await self.backend.score(category, data, with_map=form != "none", nearest=nearest)
        if form == "none":
            return image_response(image.name, found, form)
        # A map takes milliseconds to compress, too long for the event loop.
        return await asyncio.to_thread(image_response, image.name, found, form)


def score_operations(endpoint: Endpoint) -> APIRouter:
    """Routes to what can be scored, and to whether it can be."""
    router = APIRouter()
    Key = Annotated[AccessKey, Depends(endpoint.identify)]  # noqa: N806

    @router.post(
        "/v1/categories/{category}/score",
        summary="Score images of a category",
        openapi_extra={"requestBody": SCORE_BODY},
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
        nearest: Annotated[int, Query(ge=0, le=10, description="How many of the nearest normal images.")] = 0,
    ) -> Response:
        answer = await endpoint.score(request, key, category, anomaly_map, nearest)
        # FastAPI would validate it once more.
        return Response(answer.model_dump_json(), media_type="application/json")

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

    @router.get("/healthz", summary="Whether the process answers", responses=problems(_ALWAYS))
    async def healthz() -> HealthResponse:
        return HealthResponse()

    @router.get(
        "/readyz", summary="Whether images can be scored", responses=problems((*_ALWAYS, "not-ready", "overloaded"))
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
