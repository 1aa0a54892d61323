"""Read the images of a request: one as the body, several as multipart, or JSON with base64 or references."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from uniad_ray.archive.stores.location import Location
from uniad_ray.serving.http.problems import ProblemError
from uniad_ray.serving.http.references import check_reference
from uniad_ray.serving.settings import ServeSettings

IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/tiff", "image/bmp", "image/webp", "image/gif")
BODY_TYPES: Final = (*IMAGE_TYPES, "application/octet-stream")
"""Content types of a body with one image; its first bytes determine the actual format."""
MAX_NAME: Final = 255


@dataclass(frozen=True)
class SentImage:
    """An image of a request.

    Attributes:
        name: File name, URI or position in the request.
        data: The encoded bytes, or an allowed location to read them from.
    """

    name: str
    data: bytes | Location


class NamedImage(BaseModel):
    """One image of a JSON request: its bytes or its URI."""

    model_config = ConfigDict(extra="forbid")

    base64: str | None = Field(default=None, description="The encoded image file in base64.")
    uri: str | None = Field(
        default=None,
        max_length=1200,
        description="`s3://bucket/key` below an allowed prefix.",
        examples=["s3://plant/line-1/0001.png"],
    )
    name: str | None = Field(default=None, max_length=MAX_NAME, description="Name of the image in the response.")

    @model_validator(mode="after")
    def _check_source(self) -> NamedImage:
        if (self.base64 is None) == (self.uri is None):
            raise ValueError("set either base64 or uri")
        return self


class ScoreRequest(BaseModel):
    """A JSON request with images to score."""

    model_config = ConfigDict(extra="forbid")

    images: list[NamedImage] = Field(min_length=1)


async def read_images(request: Request, settings: ServeSettings) -> list[SentImage]:
    """Read the images of a request without decoding them.

    Raises:
        ProblemError: `too-large`, `unsupported-media-type`, `invalid-request` or `not-allowed`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = bounded_body(request, settings.limits.request_bytes)
    if kind == "multipart/form-data":
        images = await _read_parts(request, body, settings)
    elif kind == "application/json":
        images = _read_json(b"".join([part async for part in body]), settings)
    elif kind in BODY_TYPES:
        images = [SentImage("0", b"".join([part async for part in body]))]
    else:
        raise ProblemError(
            "unsupported-media-type",
            f"unsupported content type {kind or 'none'}: send one image as {', '.join(BODY_TYPES)}, several images as "
            "multipart/form-data, or application/json",
        )
    for image in images:
        if isinstance(image.data, bytes) and len(image.data) > settings.limits.image_bytes:
            raise ProblemError(
                "too-large",
                f"image {image.name!r} has {len(image.data)} bytes; the limit is {settings.limits.image_bytes}",
            )
    return images


async def bounded_body(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request in parts, up to a maximum size in bytes.

    Raises:
        ProblemError: `too-large`, or `invalid-request` if the body ends early.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise ProblemError("too-large", f"the body has {declared} bytes; the limit is {most}")
    total = 0
    try:
        async for part in request.stream():
            total += len(part)
            if total > most:
                raise ProblemError("too-large", f"the body exceeds the limit of {most} bytes")
            yield part
    except ClientDisconnect as error:
        raise ProblemError("invalid-request", "the body ended early; send it again") from error


async def _read_parts(request: Request, body: AsyncGenerator[bytes, None], settings: ServeSettings) -> list[SentImage]:
    most = settings.limits.images
    parser = MultiPartParser(request.headers, body, max_files=most, max_fields=0)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, AssertionError) as error:
        text = getattr(error, "message", None) or "invalid multipart body or boundary"
        kind = "too-large" if "Too many files" in text else "invalid-request"
        raise ProblemError(kind, f"{text}; send at most {most} files and no other fields") from error
    images = []
    try:
        for position, (_, part) in enumerate(form.multi_items()):
            if not isinstance(part, UploadFile):
                raise ProblemError("invalid-request", "send files and no other fields")
            images.append(SentImage((part.filename or str(position))[:MAX_NAME], await part.read()))
    finally:
        await form.close()
    if not images:
        raise ProblemError("invalid-request", "the request has no image; send at least one")
    return images


def _read_json(body: bytes, settings: ServeSettings) -> list[SentImage]:
    try:
        asked = ScoreRequest.model_validate(_parse_json(body))
    except ValidationError as error:
        raise ProblemError(
            "invalid-request", "the body does not match /openapi.json; see errors", errors=readable(error)
        ) from error
    if len(asked.images) > settings.limits.images:
        raise ProblemError(
            "too-large", f"the request has {len(asked.images)} images; the limit is {settings.limits.images}"
        )
    return [_named(position, image, settings) for position, image in enumerate(asked.images)]


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProblemError("invalid-request", "the body is not valid JSON") from error


def _named(position: int, image: NamedImage, settings: ServeSettings) -> SentImage:
    if image.uri is not None:
        return SentImage(image.name or image.uri, check_reference(image.uri, settings.reference_prefixes))
    try:
        data = base64.b64decode(image.base64 or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProblemError("invalid-request", f"images.{position}.base64: invalid base64") from error
    return SentImage(image.name or str(position), data)


def readable(error: ValidationError) -> list[dict[str, Any]]:
    """List the errors of a document without its values, which may be images or keys."""
    return [
        {"where": ".".join(str(part) for part in entry["loc"]), "what": entry["msg"]}
        for entry in error.errors(include_url=False, include_input=False)[:20]
    ]
