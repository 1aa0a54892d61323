"""Synthetic perceptions with any fields, derived from the fields' names, for tests of all experts or extractors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import torch
from support.tiny_networks import CLIP_WIDTH, SAM_SIDE

from uniad_ray.perception.base import Perception, PerceptionStream
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.descriptions import describe_segments

SIDE = 64
WIDE = 96
"""Width of rectangular images; their height is `SIDE`."""
CLUSTERS = 4
NORMAL_IMAGES = tuple(f"normal-{number:02d}" for number in range(16))
OTHERS = ("test-a", "test-b", "test-c", "test-d", "test-e")
LACKING = ("test-b", "test-d")
"""Images without the second pin, which every expert can detect."""

_SHAPES = {"level1": (4, 16, 16), "level2": (6, 8, 8), "level3": (8, 4, 4), "embedding": (CLIP_WIDTH, 1, 1)}
_SHAPES_OF = {"sam_encoder/embedding": (16, SAM_SIDE // 4, SAM_SIDE // 4)}
_OTHER_SHAPE = (8, 8, 8)
_SIZES = {"block": (20, 20), "bar": (8, 28), "pin": (6, 8)}


def extract(keys: Sequence[str], names: Collection[str], width: int = SIDE) -> Perception:
    """Builds a batch with some fields; an image depends only on its key and its width, `SIDE` or `WIDE`."""
    labels = [_labels(key, width) for key in keys]
    ground = np.array([[40, 40, 40], [200, 60, 50], [60, 70, 210], [90, 200, 80]], dtype=np.uint8)
    noise = np.stack([_own(key, "image").integers(0, 12, (SIDE, width, 3), dtype=np.uint8) for key in keys])
    batch = Perception(tuple(keys), ground[np.stack(labels)] + noise)
    return batch.extended({name: _field(name, keys, labels) for name in sorted(names)})


def stream_of(keys: Sequence[str], names: Collection[str], batch: int = 5, width: int = SIDE) -> PerceptionStream:
    """Builds a stream over some images."""
    return lambda: (extract(keys[start : start + batch], names, width) for start in range(0, len(keys), batch))


def _own(key: str, purpose: str) -> np.random.Generator:
    return np.random.default_rng(list(f"{key} {purpose}".encode()))


def _labels(key: str, image_width: int) -> np.ndarray:
    """Label image of a ground (0), a block (1), a bar (2) and one or two pins (3), shifted slightly by the key."""
    shifts = _own(key, "places").integers(0, 6, size=(4, 2))
    labels = np.zeros((SIDE, image_width), dtype=np.uint8)
    places = [("block", 1, 4, 4), ("bar", 2, 44, 4), ("pin", 3, 8, 40), ("pin", 3, 24, 40)]
    if key in LACKING:
        places.pop()
    for (kind, label, top, left), (down, right) in zip(places, shifts, strict=False):
        height, width = _SIZES[kind]
        labels[top + down : top + down + height, left + right : left + right + width] = label
    return labels


def _segments(labels: np.ndarray) -> Segments:
    masks = [labels == 1, labels == 2, *(half & (labels == 3) for half in _halves())]
    return Segments.of(np.stack(masks), names=("block", "bar", "pin", "pin"))


def _halves() -> Iterator[np.ndarray]:
    """Rows of the first and of the second pin: bool, shape (SIDE, 1)."""
    above = np.arange(SIDE)[:, None] < 22
    yield above
    yield ~above


def _vectors(key: str, name: str, segments: Segments) -> np.ndarray:
    looks = np.zeros((len(segments), CLIP_WIDTH), dtype=np.float32)
    looks[:, :3] = [(*_SIZES[kind], 5.0) for kind in segments.names]
    return looks + 0.1 * _own(key, name).normal(size=looks.shape).astype(np.float32)


def _tensor(key: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    shared = _own("layout", name).normal(size=shape)
    return torch.from_numpy((shared + 0.2 * _own(key, name).normal(size=shape)).astype(np.float32))


def _similarity(labels: np.ndarray) -> torch.Tensor:
    coarse = torch.from_numpy(labels[::8, ::8].astype(np.int64))
    return torch.nn.functional.one_hot(coarse, CLUSTERS).permute(2, 0, 1).float()


def _field(name: str, keys: Sequence[str], labels: Sequence[np.ndarray]) -> torch.Tensor | Sequence[object]:
    kind = name.rpartition("/")[2]
    each: dict[str, Callable[[], Iterable[object]]] = {
        "segments": lambda: map(_segments, labels),
        "vectors": lambda: (_vectors(key, name, _segments(one)) for key, one in zip(keys, labels, strict=True)),
        "text": lambda: (str(describe_segments(_segments(one), 0.05)) for one in labels),
    }
    if kind in each:
        return list(each[kind]())
    if kind == "labels":
        return torch.from_numpy(np.stack(labels))[:, None]
    if kind == "similarity":
        return torch.stack([_similarity(one) for one in labels])
    return torch.stack([_tensor(key, name, _shape(name, kind, labels[0].shape[1])) for key in keys])


def _shape(name: str, kind: str, width: int) -> tuple[int, int, int]:
    """Shape (C, h, w) of a field; the grids of rectangular images have more columns, except for embeddings."""
    if name in _SHAPES_OF or kind == "embedding":
        return _SHAPES_OF.get(name, _SHAPES["embedding"])
    channels, rows, columns = _SHAPES.get(kind, _OTHER_SHAPE)
    return channels, rows, columns * width // SIDE
