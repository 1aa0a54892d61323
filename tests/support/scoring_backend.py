"""Stands in for the scoring deployment: no network, no Ray; what it answers is set by the test."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from uniad_ray.archive.images import decode_image
from uniad_ray.errors import ImageError
from uniad_ray.serving.answers import ImageAnswer, Lineage, MapForm, NearestNormalImage, failed_image
from uniad_ray.serving.problems import ProblemError


def grey(level: int) -> bytes:
    """A small JPEG of one grey."""
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), (level, level, level)).save(sink, "JPEG")
    return sink.getvalue()


@dataclass
class FakeBackend:
    """Decodes images and calls each normal, with its mean grey as score.

    Attributes:
        problem: Raised instead of an answer.
        error: What a check of the reference images finds.
        seconds: How long an image takes.
        asked: Names of the images that came.
    """

    problem: ProblemError | None = None
    error: str | None = None
    seconds: float = 0.0
    asked: list[str] = field(default_factory=list)

    async def score(self, category: str, name: str, data: bytes, form: MapForm, nearest: int) -> dict[str, Any]:
        self.asked.append(name)
        await asyncio.sleep(self.seconds)
        if self.problem is not None:
            raise self.problem
        try:
            pixels = decode_image(data, (8, 8))
        except ImageError as error:
            return failed_image(name, error.kind, str(error)).model_dump(mode="json")
        lineage = Lineage(
            bundle_version="1",
            bundle_digest="0" * 64,
            code_version="0",
            image_sha256=hashlib.sha256(data).hexdigest(),
        )
        answer = ImageAnswer(
            image=name,
            status="ok",
            decision="normal",
            score=float(pixels.mean()),
            threshold=1000.0,
            reasons=[f"{category} {form}"],
            nearest=[
                NearestNormalImage(
                    image=f"good/{place}.jpg", distance=place / 10, thumbnail=base64.b64encode(grey(place)).decode()
                )
                for place in range(nearest)
            ],
            lineage=lineage,
        )
        return answer.model_dump(mode="json")

    async def check(self) -> dict[str, Any]:
        return {"checked": ["lids"], "error": self.error}

    async def status(self) -> list[dict[str, Any]]:
        return [{"category": "lids", "version": "1", "digest": "0" * 64, "load_seconds": 0.1, "experts": ["patch"]}]
