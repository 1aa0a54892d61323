"""The bank of normal instances: their kinds, and the relations between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from scipy.spatial.distance import cdist

from uniad_ray.errors import BundleError
from uniad_ray.experts.instances import Instances
from uniad_ray.experts.part_grid import PartGrid
from uniad_ray.experts.relation_bank import Deviation, Measurement, RelationBank, measure
from uniad_ray.perception.object_kinds import NO_KIND, find_kinds

_COLUMNS: Final = {"centres": 2, "boxes": 4, "colours": 3, "shapes": 4}


class InstanceBank:
    """The n instances of M normal images. A new instance is of the kind of the normal one that it is most like.

    Attributes:
        kinds: int64, shape (n,): the kind of each, in the order of the images.
        kind_count: The number of kinds.
        grid: The cells that normal instances keep to.
    """

    def __init__(
        self, instances: Instances, owners: np.ndarray, images: int, weights: tuple[int, ...], kinds: np.ndarray
    ) -> None:
        """Measures the relations of every normal image; use `fit` or `restored`.

        Args:
            instances: All instances, image by image.
            owners: int64, shape (n,): the image of each, below M.
            images: The number of images M.
            weights: How much each field's mean, and last the shape, counts for what an instance is like.
            kinds: int64, shape (n,).
        """
        self._instances = instances
        self._owners = owners
        self._images = images
        self._weights = weights
        self.kinds = kinds
        self.kind_count = int(kinds.max(initial=NO_KIND)) + 1
        self._descriptor = _Descriptor(instances, weights)
        self._looks = self._descriptor(instances)
        self.grid = PartGrid.learn(instances.boxes[kinds != NO_KIND], owners[kinds != NO_KIND], images)
        rows = [np.flatnonzero(owners == image) for image in range(images)]
        self._relations = RelationBank(
            [self._measure(_rows(instances, each), kinds[each], self._looks[each]) for each in rows]
        )

    @classmethod
    def fit(cls, images: Sequence[Instances]) -> Self:
        """Finds the kinds, by that weighting of fields and shape by which their counts are the most regular.

        Args:
            images: The instances of each normal image, M >= 1.
        """
        together = Instances(
            **{name: np.concatenate([getattr(one, name) for one in images]) for name in _COLUMNS},
            appearance=[np.concatenate(field) for field in zip(*(one.appearance for one in images), strict=True)],
        )
        owners = np.repeat(np.arange(len(images)), [len(one) for one in images])
        best = max(
            (
                (*find_kinds(_Descriptor(together, weights)(together), owners, len(images)), weights)
                for weights in _weightings(len(together.appearance) + 1)
            ),
            key=lambda found: found[1],
        )
        return cls(together, owners, len(images), weights=best[2], kinds=best[0])

    def deviations(self, instances: Instances) -> list[Deviation]:
        """How far each relation between the instances of an image is from those of normal images."""
        looks = self._descriptor(instances)
        known = len(self.kinds) > 0
        kinds = self.kinds[cdist(looks, self._looks).argmin(axis=1)] if known else np.full(len(instances), NO_KIND)
        return self._relations.deviations(self._measure(instances, kinds, looks))

    def _measure(self, instances: Instances, kinds: np.ndarray, looks: np.ndarray) -> list[Measurement]:
        return measure(instances, kinds, looks, self.kind_count, self.grid)

    def arrays(self) -> dict[str, np.ndarray]:
        """The bank as arrays; `document` goes beside them."""
        columns = {name: getattr(self._instances, name) for name in _COLUMNS}
        appearance = {f"appearance_{number}": field for number, field in enumerate(self._instances.appearance)}
        return {**columns, **appearance, "owners": self._owners, "kinds": self.kinds}

    def document(self) -> dict[str, Any]:
        """The rest of the bank, as JSON types."""
        return {"images": self._images, "weights": list(self._weights)}

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray], document: Mapping[str, Any], fields: int) -> Self:
        """Restores a bank from `arrays` and `document`; it gives exactly the deviations of the one that was stored.

        Args:
            arrays: The arrays; there may be others among them.
            document: The rest.
            fields: The number of feature fields.

        Raises:
            BundleError: An array is missing, or the shapes do not fit each other.
        """
        names = [*_COLUMNS, *(f"appearance_{number}" for number in range(fields)), "owners", "kinds"]
        images, weights = document.get("images"), document.get("weights", ())
        number = len(arrays["kinds"]) if "kinds" in arrays else 0
        if (
            any(name not in arrays or len(arrays[name]) != number for name in names)
            or any(arrays[name].shape != (number, width) for name, width in _COLUMNS.items())
            or not isinstance(images, int)
            or len(weights) != fields + 1
        ):
            raise BundleError("the bundle holds no bank of instances; fit the category again")
        instances = Instances(
            **{name: arrays[name] for name in _COLUMNS},
            appearance=[arrays[f"appearance_{number}"] for number in range(fields)],
        )
        return cls(instances, arrays["owners"], images, tuple(weights), arrays["kinds"])


class _Descriptor:
    """Joins the means of the fields and the shape, each with the mean square of its weight over normal instances."""

    def __init__(self, normal: Instances, weights: tuple[int, ...]) -> None:
        self._weights = weights
        self._centres, self._scales = [], []
        for features in (*normal.appearance, normal.shapes):
            count = max(len(features), 1)
            centre = features.sum(axis=0, dtype=np.float64) / count
            self._centres.append(centre)
            self._scales.append(max(float(np.sqrt(np.square(features - centre).sum() / count)), 1e-6))

    def __call__(self, instances: Instances) -> np.ndarray:
        """The descriptors: float64, shape (n, D)."""
        groups = zip((*instances.appearance, instances.shapes), self._centres, self._scales, self._weights, strict=True)
        return np.concatenate(
            [(features - centre) * (weight / scale) for features, centre, scale, weight in groups if weight], axis=1
        )


def _weightings(groups: int) -> Iterator[tuple[int, ...]]:
    """All choices of weights 0, 1 and 2 that differ in more than a factor."""
    return (weights for weights in itertools.product(range(3), repeat=groups) if 1 in weights)


def _rows(instances: Instances, rows: np.ndarray) -> Instances:
    return Instances(**{name: getattr(instances, name)[rows] for name in _COLUMNS}, appearance=())
