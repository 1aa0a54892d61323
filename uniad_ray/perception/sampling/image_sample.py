"""Order-independent sampling of images from a stream, in bounded memory."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

from uniad_ray.perception.sampling.priorities import sampling_priorities

T = TypeVar("T")


class ImageSample(Generic[T]):
    """A uniform sample of images, each with an item, independent of order and batching.

    Keeps the images with the lowest priorities (bottom-k sampling).
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        """Creates an empty sample.

        Args:
            capacity: Maximum number of images, at least 1.
            seed: Seed of the priorities.
        """
        self._capacity = capacity
        self._seed = seed
        self._held: dict[str, T] = {}
        self._highest_first: list[tuple[int, str]] = []

    def wants(self, row_key: str) -> bool:
        """Whether `add` would keep an image; skip computing the item if not."""
        return len(self._held) < self._capacity or self._priority(row_key) < -self._highest_first[0][0]

    def add(self, row_key: str, item: T) -> None:
        """Offers one image with its item."""
        if row_key not in self._held:
            heapq.heappush(self._highest_first, (-self._priority(row_key), row_key))
        self._held[row_key] = item
        if len(self._held) > self._capacity:
            del self._held[heapq.heappop(self._highest_first)[1]]

    def items(self) -> dict[str, T]:
        """The items by row key, ascending: at most `capacity` images."""
        return {row_key: self._held[row_key] for row_key in sorted(self._held)}

    def by_priority(self) -> list[T]:
        """The items in order of priority; every prefix is a sample too."""
        return [self._held[row_key] for _, row_key in sorted(self._highest_first, reverse=True)]

    def _priority(self, row_key: str) -> int:
        return int(sampling_priorities(row_key, 1, self._seed)[0])
