"""Fake scoring deployment without network or Ray; the test sets its results."""

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
    """A small JPEG of a uniform grey."""
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), (level, level, level)).save(sink, "JPEG")
    return sink.getvalue()


@dataclass
class FakeBackend:
    """Decodes images and returns a normal verdict for each, with its mean grey as the score.

    Attributes:
        problem: Raised instead of a verdict.
        error: Result of the check of the reference images.
        seconds: Time per image.
        asked: Category of each received image.
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
