"""Stands in for the scoring deployment where a page is to have all that an answer may hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from support.scoring_backend import FakeBackend

from uniad_ray.serving.answers import map_document


class AnomalousBackend(FakeBackend):
    """Calls each image anomalous, with a map that is high in its middle, two experts, and one left out."""

    async def score(self, category: str, name: str, data: bytes, *options: Any, **named: Any) -> dict[str, Any]:
        answer = await super().score(category, name, data, *options, **named)
        if answer["status"] == "error":
            return answer
        rows, columns = np.mgrid[0:16, 0:16]
        peak = (8 * np.exp(-((rows - 8) ** 2 + (columns - 8) ** 2) / 20)).astype(np.float32)
        anomaly_map = map_document(peak, "png")
        assert anomaly_map is not None
        return answer | {
            "decision": "anomalous",
            "score": 5.25,
            "threshold": 2.0,
            "experts": [
                {"expert": "patch", "raw": 0.5, "calibrated": 6.0},
                {"expert": "text_memory", "raw": 0.1, "calibrated": -0.5},
            ],
            "left_out": [{"expert": "text_similarity", "reason": "no text within 2 seconds"}],
            "reasons": ["1 of part-5 expected, 0 found", "patch: strongest in the middle"],
            "map": anomaly_map.model_dump(mode="json"),
        }
