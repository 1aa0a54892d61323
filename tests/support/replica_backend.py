"""A replica's scorer behind the API in one process, without Ray Serve."""

from __future__ import annotations

from typing import Any

from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.serving.replica.scorer import LoadedCategory, ReplicaScorer
from uniad_ray.serving.settings import ServeSettings


class ReplicaInProcess:
    """A `Backend` with one replica in this process, which keeps all categories."""

    def __init__(self, settings: ServeSettings) -> None:
        self.scorer = ReplicaScorer(settings, device="cpu")
        self._loaded: dict[str, LoadedCategory] = {}

    async def score(self, category: str, data: bytes, *, with_map: bool, nearest: int) -> OnlineVerdict | UnusableImage:
        if category not in self._loaded:
            self._loaded[category] = await self.scorer.load(category)
        return await self.scorer.score(self._loaded[category], data, with_map=with_map, nearest=nearest)

    async def check(self) -> dict[str, Any]:
        return await self.scorer.check()

    async def status(self) -> list[dict[str, Any]]:
        return self.scorer.status()
