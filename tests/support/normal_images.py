"""Normal images of a category, drawn on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from uniad_ray.scoring.fitting.perceptions import NormalImage


class DrawnNormalImages:
    """Noisy grey images, drawn on demand."""

    def __init__(
        self,
        count: int,
        *,
        size: tuple[int, int] = (64, 64),
        damaged: frozenset[int] = frozenset(),
        splits: str = "train",
    ) -> None:
        self.rows: Sequence[NormalImage] = [NormalImage(f"{i:032d}", f"{i:064d}", splits) for i in range(count)]
        self.originals: dict[str, bytes] = {}
        self.size = size
        self.damaged = damaged
        self.reads = 0

    def image(self, index: int) -> np.ndarray:
        generator = np.random.default_rng(index)
        return generator.normal(120, 8, (*self.size, 3)).clip(0, 255).astype(np.uint8)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in indices:
            self.reads += 1
            if index not in self.damaged:
                yield index, self.image(index)
