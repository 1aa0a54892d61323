"""Perceptions of the normal images of a fit, kept on disk where they are read more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from uniad_ray.experts.base import PerceptionStream
from uniad_ray.perception.base import Perception
from uniad_ray.perception.pipeline import PerceptionPipeline


@dataclass(frozen=True)
class NormalImage:
    """One normal image of a fit, before its pixels are read."""

    row_key: str
    image_id: str
    split: str


class NormalImages(Protocol):
    """The normal images of one category, in a fixed order."""

    rows: Sequence[NormalImage]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes the images of the given indices, in that order, as (index, uint8 array of the input size).

        A file that cannot be decoded is left out.
        """
        ...


class PerceptionSource:
    """Perceives normal images in batches; with a spill folder none passes the networks twice."""

    def __init__(
        self,
        images: NormalImages,
        pipeline: PerceptionPipeline,
        wanted: frozenset[str],
        *,
        batch_size: int,
        spill: Path | None,
        on_perceived: Callable[[int], None] | None = None,
    ) -> None:
        """Prepares; nothing is read yet.

        Args:
            images: The normal images.
            pipeline: Networks.
            wanted: Fields to compute.
            batch_size: Images per batch.
            spill: Folder for perceptions that will be asked for again; None where each is read once.
            on_perceived: Called with the number of images of each batch that passed the networks for the first time.
        """
        self._images = images
        self._pipeline = pipeline
        self._wanted = wanted
        self._batch_size = batch_size
        self._spill = spill
        self._on_perceived = on_perceived
        self._index_of = {row.row_key: index for index, row in enumerate(images.rows)}
        self._on_disk: set[int] = set()
        self._damaged: set[int] = set()
        self._counted: set[int] = set()

    def stream(self, indices: Sequence[int]) -> PerceptionStream:
        """A stream over the given images that can be started again and again."""
        return lambda: self.perceive(indices)

    def perceive(self, indices: Sequence[int]) -> Iterator[Perception]:
        """One pass over the given images, in order; images that cannot be decoded are left out."""
        for start in range(0, len(indices), self._batch_size):
            batch = [index for index in indices[start : start + self._batch_size] if index not in self._damaged]
            missing = [index for index in batch if index not in self._on_disk]
            computed = self._compute(missing)
            if self._spill is None:
                if computed is not None:
                    yield computed
                continue
            if computed is not None:
                self._write(computed, self._spill)
            stored = [index for index in batch if index in self._on_disk]
            if stored:
                yield self._read(stored, self._spill)

    def _compute(self, indices: Sequence[int]) -> Perception | None:
        decoded = list(self._images.read(indices))
        self._damaged.update(set(indices) - {index for index, _ in decoded})
        if not decoded:
            return None
        keys = [self._images.rows[index].row_key for index, _ in decoded]
        perception = self._pipeline.perceive(keys, np.stack([image for _, image in decoded]), self._wanted)
        fresh = {index for index, _ in decoded} - self._counted
        self._counted |= fresh
        if self._on_perceived is not None:
            self._on_perceived(len(fresh))
        return perception

    def _write(self, perception: Perception, folder: Path) -> None:
        for position, key in enumerate(perception.row_keys):
            tensors = {name: tensor[position].contiguous().cpu() for name, tensor in perception.fields.items()}
            tensors["images"] = torch.from_numpy(np.array(perception.images[position]))
            save_file(tensors, folder / f"{key}.safetensors")
            self._on_disk.add(self._index_of[key])

    def _read(self, indices: Sequence[int], folder: Path) -> Perception:
        keys = [self._images.rows[index].row_key for index in indices]
        stored = [load_file(folder / f"{key}.safetensors") for key in keys]
        images = np.stack([tensors.pop("images").numpy() for tensors in stored])
        fields = {name: torch.stack([tensors[name] for tensors in stored]) for name in self._wanted}
        return Perception(row_keys=keys, images=images, fields=fields)
