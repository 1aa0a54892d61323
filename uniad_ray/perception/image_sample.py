"""An order-free sample of images out of a stream, in bounded memory."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

from uniad_ray.perception.candidate_sample import sampling_priorities

T = TypeVar("T")


class ImageSample(Generic[T]):
    """A uniform sample of what is known of images that depends on neither their order nor their batching.

    Keeps the images with the lowest priorities (bottom-k sampling); holds up to twice `capacity` of them.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        """Starts empty.

        Args:
            capacity: The most images kept, at least 1.
            seed: Seed of the priorities.
        """
        self._capacity = capacity
        self._seed = seed
        self._held: dict[str, tuple[int, T]] = {}

    def add(self, row_key: str, item: T) -> None:
        """Offers one image."""
        self._held[row_key] = (int(sampling_priorities(row_key, 1, self._seed)[0]), item)
        if len(self._held) >= 2 * self._capacity:
            self._prune()

    def items(self) -> dict[str, T]:
        """The sample by row key, ascending: at most `capacity` images."""
        self._prune()
        return {row_key: self._held[row_key][1] for row_key in sorted(self._held)}

    def _prune(self) -> None:
        lowest = heapq.nsmallest(self._capacity, self._held, key=lambda row_key: (self._held[row_key][0], row_key))
        self._held = {row_key: self._held[row_key] for row_key in lowest}
