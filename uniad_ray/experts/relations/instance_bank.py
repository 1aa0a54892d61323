"""The bank of normal instances and the relations between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np

from uniad_ray.errors import BundleError
from uniad_ray.experts.relations.bank import Deviation, RelationBank, measure
from uniad_ray.experts.relations.instances import NO_KIND, Instances
from uniad_ray.experts.relations.part_grid import PartGrid
from uniad_ray.perception.spread import spread

_COLUMNS: Final = {"centres": 2, "boxes": 4, "colours": 3, "directions": 8}


class InstanceBank:
    """The n instances of M normal images.

    Attributes:
        kinds: The kinds of the instances, sorted, without `NO_KIND`.
        grid: The cells that the instances lie in.
    """

    def __init__(self, instances: Instances, owners: np.ndarray, images: int) -> None:
        """Measures the relations in every normal image; use `fit` or `restored` instead.

        Args:
            instances: All instances, image by image.
            owners: int64, shape (n,): image index of each instance, below `images`.
            images: Number of images M.
        """
        self._instances = instances
        self._owners = owners
        self._images = images
        self._scales = [spread(vectors) for vectors in instances.vectors]
        self.kinds = tuple(sorted(set(instances.kinds) - {NO_KIND}))
        has_kind = np.array([kind != NO_KIND for kind in instances.kinds], dtype=bool)
        self.grid = PartGrid.learn(instances.boxes[has_kind], owners[has_kind], images)
        self._relations = RelationBank(
            [
                measure(one, self._looks(one), self.kinds, self.grid)
                for one in (_rows(instances, np.flatnonzero(owners == image)) for image in range(images))
            ]
        )

    @classmethod
    def fit(cls, images: Sequence[Instances]) -> Self:
        """Builds the bank from the instances of M >= 1 normal images."""
        together = Instances(
            kinds=tuple(kind for one in images for kind in one.kinds),
            **{name: np.concatenate([getattr(one, name) for one in images]) for name in _COLUMNS},
            vectors=[np.concatenate(field) for field in zip(*(one.vectors for one in images), strict=True)],
        )
        return cls(together, np.repeat(np.arange(len(images)), [len(one) for one in images]), len(images))

    @property
    def dimensions(self) -> list[int]:
        """Length of the vectors of each field."""
        return [vectors.shape[1] for vectors in self._instances.vectors]

    def deviations(self, instances: Instances) -> list[Deviation]:
        """Deviation of each relation in an image from those of normal images."""
        kinds = sorted({*self.kinds, *instances.kinds} - {NO_KIND})
        return self._relations.deviations(measure(instances, self._looks(instances), kinds, self.grid))

    def arrays(self) -> dict[str, np.ndarray]:
        """The bank as arrays; `document` holds the rest."""
        columns = {name: getattr(self._instances, name) for name in _COLUMNS}
        vectors = {f"vectors_{number}": each for number, each in enumerate(self._instances.vectors)}
        return {**columns, **vectors, "owners": self._owners}

    def document(self) -> dict[str, Any]:
        """The rest of the bank, as JSON types."""
        return {"images": self._images, "kinds": list(self._instances.kinds)}

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
        images, kinds = document.get("images"), document.get("kinds")
        if (
            not isinstance(images, int)
            or not isinstance(kinds, list)
            or any(name not in arrays or len(arrays[name]) != len(kinds) for name in names)
            or any(arrays[name].shape != (len(kinds), width) for name, width in _COLUMNS.items())
        ):
            raise BundleError("the bundle has no bank of instances; fit the category again")
        instances = Instances(
            kinds=tuple(kinds),
            **{name: arrays[name] for name in _COLUMNS},
            vectors=[arrays[f"vectors_{number}"] for number in range(fields)],
        )
        return cls(instances, arrays["owners"], images)

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
