"""Fake scoring deployment whose verdicts have every field that a response can hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support.scoring_backend import FakeBackend

from uniad_ray.archive.images import DEFAULT_LIMITS
from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.scoring.scorer import Verdict
from uniad_ray.serving.replica.pictures import sixteen_bit_picture

CAMERA = (0, 4095)
"""Value range of its 16-bit images."""


class AnomalousBackend(FakeBackend):
    """Returns an anomalous verdict for every image: a map with a high centre, two experts, and one left out."""

    async def score(self, category: str, data: bytes, *, with_map: bool, nearest: int) -> OnlineVerdict | UnusableImage:
        found = await super().score(category, data, with_map=with_map, nearest=nearest)
        if isinstance(found, UnusableImage):
            return found
        rows, columns = np.mgrid[0:16, 0:16]
        peak = (8 * np.exp(-((rows - 8) ** 2 + (columns - 8) ** 2) / 20)).astype(np.float32)
        verdict = Verdict(
            score=5.25,
            threshold=2.0,
            raw={"patch": 0.5, "text_memory": 0.1},
            calibrated={"patch": 6.0, "text_memory": -0.5},
            anomaly_map=peak if with_map else None,
            reasons=("1 of part-5 expected, 0 found", "patch: strongest in the middle"),
        )
        left_out = {"text_similarity": "no text within 2 seconds"}
        picture = sixteen_bit_picture(data, DEFAULT_LIMITS, CAMERA) if with_map else None
        return replace(found, verdict=verdict, left_out=left_out, picture=picture)
