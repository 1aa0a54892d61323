"""A replica's scorer behind the API without Ray: what Serve does between them, this does in one process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.serving.live_category import DecodedImage
from uniad_ray.serving.replica_scorer import LoadedCategory, Outcome, ReplicaScorer
from uniad_ray.serving.settings import ServeSettings


def one_by_one(
    score: Callable[[list[DecodedImage]], Awaitable[list[Outcome]]],
) -> Callable[[DecodedImage], Awaitable[Outcome]]:
    """Batches of one, in place of those that Serve gathers."""

    async def score_one(image: DecodedImage) -> Outcome:
        return (await score([image]))[0]

    return score_one


class ReplicaInProcess:
    """A `Backend` whose only replica is here; it keeps all categories."""

    def __init__(self, settings: ServeSettings) -> None:
        self.scorer = ReplicaScorer(settings, batched=one_by_one, device="cpu")
        self._loaded: dict[str, LoadedCategory] = {}

    async def score(self, category: str, data: bytes, *, with_map: bool, nearest: int) -> OnlineVerdict | UnusableImage:
        if category not in self._loaded:
            self._loaded[category] = await self.scorer.load(category)
        return await self.scorer.score(self._loaded[category], data, with_map=with_map, nearest=nearest)

    async def check(self) -> dict[str, Any]:
        return await self.scorer.check()

    async def status(self) -> list[dict[str, Any]]:
        return self.scorer.status()
