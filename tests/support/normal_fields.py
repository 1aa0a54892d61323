"""Fields of synthetic normal images for tests of experts: a fixed layout with a little noise per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from uniad_ray.perception.base import Perception

NORMAL_IMAGES = [f"normal-{number:02d}" for number in range(24)]
DAMAGED_CELL = (3, 5)


def fields_of(key: str, shapes: Mapping[str, tuple[int, int, int]], noise: float = 0.2) -> dict[str, torch.Tensor]:
    """Fields of one image by name, float32, in the given shapes (C, h, w)."""
    layout = np.random.default_rng(7)
    own = np.random.default_rng(int.from_bytes(key.encode(), "little"))
    return {
        name: torch.from_numpy((layout.normal(size=shape) + noise * own.normal(size=shape)).astype(np.float32))
        for name, shape in shapes.items()
    }


def extract(
    keys: Sequence[str],
    shapes: Mapping[str, tuple[int, int, int]],
    *,
    damaged: Sequence[str] = (),
    damage: float = 25.0,
) -> Perception:
    """A batch; the images in `damaged` get one odd cell, `DAMAGED_CELL`, in the first field."""
    each = [fields_of(key, shapes) for key in keys]
    for key in damaged:
        each[keys.index(key)][next(iter(shapes))][(slice(None), *DAMAGED_CELL)] += damage
    fields = {name: torch.stack([one[name] for one in each]) for name in shapes}
    return Perception(row_keys=keys, images=np.zeros((len(keys), 64, 64, 3), dtype=np.uint8), fields=fields)


def stream_of(
    keys: Sequence[str], shapes: Mapping[str, tuple[int, int, int]], batch: int = 5
) -> Callable[[], Iterator[Perception]]:
    """A stream over normal images."""
    return lambda: (extract(keys[start : start + batch], shapes) for start in range(0, len(keys), batch))
