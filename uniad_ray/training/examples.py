"""Images with the outputs of the teachers, computed once if memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from uniad_ray.errors import FitError
from uniad_ray.perception.base import StoredFields
from uniad_ray.perception.features.student import DistilledFeatures, StudentConfig
from uniad_ray.perception.pipeline import PerceptionPipeline


class ImageRow(Protocol):
    """One image before it is decoded."""

    @property
    def row_key(self) -> str:
        """Row key in the archive."""
        ...

    @property
    def image_id(self) -> str:
        """sha256 of the encoded image."""
        ...

    @property
    def chunk(self) -> str:
        """Name of the chunk that stores it."""
        ...


class ReadableImages(Protocol):
    """The normal images of one category."""

    @property
    def rows(self) -> Sequence[ImageRow]:
        """The images, in a fixed order."""
        ...

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes the images of the given indices, in that order; skips those that cannot be decoded."""
        ...


@dataclass(frozen=True)
class Example:
    """One image, uint8, shape (H, W, 3), and the teachers' features of it with N = 1, on the CPU."""

    image: np.ndarray
    teachers: DistilledFeatures

    @property
    def bytes(self) -> int:
        """Size in memory."""
        features = [*self.teachers.levels, self.teachers.logical]
        return self.image.nbytes + sum(feature.nbytes for feature in features)


class Examples:
    """Examples by index, with a bounded cache.

    The first examples stay in the cache. Every epoch asks for all examples in another order; evicting the oldest ones
    would evict most of them before they are needed again.
    """

    def __init__(
        self,
        images: ReadableImages,
        teachers: PerceptionPipeline,
        config: StudentConfig,
        stored: StoredFields | None = None,
    ) -> None:
        """Prepares the cache; reads nothing yet.

        Args:
            images: The images.
            teachers: Provides the fields that the student learns.
            config: Configuration of the student.
            stored: Precomputed fields of the teachers.
        """
        self.rows = images.rows
        self._images = images
        self._teachers = teachers
        self._stored = stored
        self._levels = config.structural_teacher
        self._logical = config.logical_teacher
        self._room = config.training.cache_bytes
        self._kept: dict[int, Example] = {}
        self._damaged: set[int] = set()

    def get(self, indices: Sequence[int]) -> list[Example | None]:
        """Examples in the given order; None for each image that cannot be decoded."""
        missing = [index for index in dict.fromkeys(indices) if index not in self._kept and index not in self._damaged]
        found = self._kept | self._compute(missing) if missing else self._kept
        return [found.get(index) for index in indices]

    def first_readable(self, indices: Sequence[int]) -> Example:
        """The first of the given images that can be decoded.

        Raises:
            FitError: None of the images can be decoded.
        """
        for index in indices:
            (example,) = self.get([index])
            if example is not None:
                return example
        raise FitError("none of the normal images can be decoded; fix them and ingest them again")

    def _compute(self, indices: Sequence[int]) -> dict[int, Example]:
        decoded = list(self._images.read(indices))
        self._damaged.update(set(indices) - {index for index, _ in decoded})
        if not decoded:
            return {}
        perception = self._teachers.extract(
            [self.rows[index].row_key for index, _ in decoded],
            np.stack([image for _, image in decoded]),
            frozenset({*self._levels, self._logical}),
            self._stored,
        )
        fields = {name: tensor.cpu() for name, tensor in perception.fields.items()}
        found = {}
        for position, (index, _) in enumerate(decoded):
            # Copies, because a view would keep the whole batch in memory.
            image = perception.images[position].copy()
            own = {name: tensor[position : position + 1].clone() for name, tensor in fields.items()}
            example = Example(image, DistilledFeatures([own[name] for name in self._levels], own[self._logical]))
            found[index] = example
            if example.bytes <= self._room:
                self._room -= example.bytes
                self._kept[index] = example
        return found
