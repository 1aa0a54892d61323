"""Order-independent sampling of vectors from a stream, in bounded memory."""

from __future__ import annotations

import numpy as np
import torch

from uniad_ray.perception.sampling.priorities import sampling_priorities


class CandidateSample:
    """A uniform sample of patch vectors in bounded memory, independent of order and batching.

    Keeps the vectors with the lowest priorities (bottom-k sampling). Merging the samples of the parts of a stream gives
    the sample of the whole stream. Peak memory, while pruning, is about 2.5 times `capacity` vectors.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        """Creates an empty sample.

        Args:
            capacity: Maximum number of vectors.
            seed: Seed of the priorities.
        """
        self._capacity = capacity
        self._seed = seed
        self._threshold: np.uint64 | None = None
        self._priorities: list[np.ndarray] = []
        self._vectors: list[np.ndarray] = []
        self._held = 0

    def add(self, row_key: str, vectors: torch.Tensor) -> None:
        """Offers all patch vectors of one image.

        Args:
            row_key: The image's key.
            vectors: float32, shape (P, C), on any device; only the vectors kept are copied to the host.
        """
        priorities = sampling_priorities(row_key, len(vectors), self._seed)
        if self._threshold is None:
            self._append(priorities, vectors.cpu().numpy())
            return
        keep = np.flatnonzero(priorities < self._threshold)
        if len(keep):
            self._append(priorities[keep], vectors[torch.from_numpy(keep).to(vectors.device)].cpu().numpy())

    def merge(self, other: CandidateSample) -> None:
        """Merges the sample of another part of the stream; seed and capacity must be the same."""
        self._priorities += other._priorities
        self._vectors += other._vectors
        self._held += other._held
        self._prune_if_full()

    def vectors(self) -> np.ndarray:
        """The sample in order of priority: float32, shape (at most `capacity`, C); (0, 0) if empty."""
        if not self._vectors:
            return np.zeros((0, 0), dtype=np.float32)
        self._prune()
        return self._vectors[0]

    def _append(self, priorities: np.ndarray, vectors: np.ndarray) -> None:
        self._priorities.append(priorities)
        self._vectors.append(np.array(vectors, dtype=np.float32))
        self._held += len(priorities)
        self._prune_if_full()

    def _prune_if_full(self) -> None:
        if self._held > self._capacity + max(self._capacity // 4, 4096):
            self._prune()

    def _prune(self) -> None:
        priorities = np.concatenate(self._priorities)
        order = np.argsort(priorities, kind="stable")[: self._capacity]
        if len(order) == self._capacity:
            self._threshold = priorities[order[-1]]
        self._vectors = [np.concatenate(self._vectors)[order]]
        self._priorities = [priorities[order]]
        self._held = len(order)
