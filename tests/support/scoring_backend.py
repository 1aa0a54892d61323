"""Stands in for the scoring deployment: no network, no Ray; what it answers is set by the test."""

from __future__ import annotations

import asyncio
import hashlib
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from uniad_ray.archive.images import decode_image
from uniad_ray.errors import ImageError
from uniad_ray.scoring.bundles.gallery import NearestNormal
from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.scoring.scorer import Verdict
from uniad_ray.serving.http.problems import ProblemError


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
        asked: Category of each image that came.
    """

    problem: ProblemError | None = None
    error: str | None = None
    seconds: float = 0.0
    asked: list[str] = field(default_factory=list)

    async def score(self, category: str, data: bytes, *, with_map: bool, nearest: int) -> OnlineVerdict | UnusableImage:
        self.asked.append(category)
        await asyncio.sleep(self.seconds)
        if self.problem is not None:
            raise self.problem
        try:
            pixels = decode_image(data, (8, 8))
        except ImageError as error:
            return UnusableImage(error.kind, str(error))
        verdict = Verdict(
            score=float(pixels.mean()),
            threshold=1000.0,
            raw={},
            calibrated={},
            anomaly_map=pixels[..., 0].astype(np.float32) if with_map else None,
            reasons=(category,),
        )
        return OnlineVerdict(
            verdict=verdict,
            left_out={},
            nearest=tuple(
                NearestNormal(source_uri=f"good/{place}.jpg", distance=place / 10, thumbnail=grey(place))
                for place in range(nearest)
            ),
            bundle_version="1",
            bundle_digest="0" * 64,
            code_version="0",
            image_sha256=hashlib.sha256(data).hexdigest(),
        )

    async def check(self) -> dict[str, Any]:
        return {"checked": ["lids"], "error": self.error}

    async def status(self) -> list[dict[str, Any]]:
        return [{"category": "lids", "version": "1", "digest": "0" * 64, "load_seconds": 0.1, "experts": ["patch"]}]
