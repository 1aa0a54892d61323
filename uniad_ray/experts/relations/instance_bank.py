"""The bank of normal instances and the relations between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np

from uniad_ray.errors import BundleError
from uniad_ray.experts.relations.bank import Deviation, Measurement, RelationBank, measure
from uniad_ray.experts.relations.instances import NO_KIND, Instances
from uniad_ray.experts.relations.part_grid import PartGrid
from uniad_ray.perception.spread import spread

_COLUMNS: Final = {"centres": 2, "boxes": 4, "colours": 3, "directions": 8}
_MOST_IN_ORDER: Final = 16
"""A kind with more instances in normal images is numerous: grains, which lie anywhere."""


class InstanceBank:
    """The n instances of M normal images.

    Attributes:
        kinds: The kinds of all instances, sorted, without `NO_KIND`.
        grid: The cells that the instances lie in.
    """

    def __init__(self, instances: Instances, owners: np.ndarray, kinds: Sequence[str], counts: np.ndarray) -> None:
        """Measures the relations in every normal image; use `fit` or `restored` instead.

        Args:
            instances: All described instances, image by image.
            owners: int64, shape (n,): image index of each instance, below M.
            kinds: The K kinds, sorted.
            counts: int64, shape (M, K): number of all instances of each kind in each image.
        """
        self._instances = instances
        self._owners = owners
        self._counts = counts
        self._scales = [spread(vectors) for vectors in instances.vectors]
        self.kinds = tuple(kinds)
        self._numerous = frozenset(
            kind for kind, numbers in zip(kinds, counts.T, strict=True) if np.median(numbers) > _MOST_IN_ORDER
        )
        has_kind = np.array([kind != NO_KIND for kind in instances.kinds], dtype=bool)
        self.grid = PartGrid.learn(instances.boxes[has_kind], owners[has_kind], len(counts))
        self._relations = RelationBank(
            [
                self._measured(_rows(instances, np.flatnonzero(owners == image)), numbers)
                for image, numbers in enumerate(counts.tolist())
            ]
        )

    @classmethod
    def fit(cls, images: Sequence[Instances]) -> Self:
        """Builds the bank from the instances of M >= 1 normal images."""
        columns: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in images]) for name in _COLUMNS}
        together = Instances(
            kinds=tuple(kind for one in images for kind in one.kinds),
            **columns,
            vectors=[np.concatenate(field) for field in zip(*(one.vectors for one in images), strict=True)],
        )
        each = [one.counts() for one in images]
        kinds = sorted(set().union(*each))
        counts = np.array([[numbers.get(kind, 0) for kind in kinds] for numbers in each], dtype=np.int64)
        owners = np.repeat(np.arange(len(images)), [len(one) for one in images])
        return cls(together, owners, kinds, counts.reshape(len(images), len(kinds)))

    @property
    def dimensions(self) -> list[int]:
        """Length of the vectors of each field."""
        return [vectors.shape[1] for vectors in self._instances.vectors]

    def deviations(self, instances: Instances) -> list[Deviation]:
        """Deviation of each relation in an image from those of normal images."""
        counts = dict.fromkeys(self.kinds, 0) | instances.counts()
        looks = self._looks(instances)
        return self._relations.deviations(measure(instances, looks, counts, self.grid, self._numerous))

    def arrays(self) -> dict[str, np.ndarray]:
        """The bank as arrays; `document` holds the rest."""
        columns = {name: getattr(self._instances, name) for name in _COLUMNS}
        vectors = {f"vectors_{number}": each for number, each in enumerate(self._instances.vectors)}
        return {**columns, **vectors, "owners": self._owners, "counts": self._counts}

    def document(self) -> dict[str, Any]:
        """The rest of the bank, as JSON types."""
        return {"images": len(self._counts), "kinds": list(self._instances.kinds), "counted": list(self.kinds)}

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray], document: Mapping[str, Any], fields: int) -> Self:
        """Restores a bank from `arrays` and `document`; its deviations are exactly those of the stored bank.

        Args:
            arrays: The arrays; others may be among them.
            document: The rest.
            fields: Number of vector fields.

        Raises:
            BundleError: An array is missing, or the shapes do not match each other.
        """
        names = [*_COLUMNS, *(f"vectors_{number}" for number in range(fields)), "owners"]
        kinds, counted, counts = document.get("kinds"), document.get("counted"), arrays.get("counts")
        if (
            not isinstance(kinds, list)
            or not isinstance(counted, list)
            or counts is None
            or counts.shape != (document.get("images"), len(counted))
            or any(name not in arrays or len(arrays[name]) != len(kinds) for name in names)
            or any(arrays[name].shape != (len(kinds), width) for name, width in _COLUMNS.items())
        ):
            raise BundleError("the bundle has no bank of instances; fit the category again")
        columns: dict[str, Any] = {name: arrays[name] for name in _COLUMNS}
        instances = Instances(
            kinds=tuple(kinds),
            **columns,
            vectors=[arrays[f"vectors_{number}"] for number in range(fields)],
        )
        return cls(instances, arrays["owners"], counted, counts)

    def _measured(self, instances: Instances, numbers: Sequence[int]) -> list[Measurement]:
        counts = dict(zip(self.kinds, numbers, strict=True))
        return measure(instances, self._looks(instances), counts, self.grid, self._numerous)

    def _looks(self, instances: Instances) -> np.ndarray:
        """The vectors of all fields, each scaled to equal variation among normal instances: float32, shape (n, D)."""
        return np.concatenate(
            [vectors / scale for vectors, scale in zip(instances.vectors, self._scales, strict=True)], axis=1
        )


def _rows(instances: Instances, rows: np.ndarray) -> Instances:
    return Instances(
        kinds=tuple(instances.kinds[row] for row in rows),
        **{name: getattr(instances, name)[rows] for name in _COLUMNS},
        vectors=[each[rows] for each in instances.vectors],
    )
