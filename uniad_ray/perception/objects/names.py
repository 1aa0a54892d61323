"""Naming of objects without a list of classes, by kinds that occur in regular numbers in normal images."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import numpy as np
from pydantic import Field, model_validator
from scipy.spatial.distance import cdist

from uniad_ray.config.base import StrictModel
from uniad_ray.config.loading import read_words
from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.objects.kinds import NO_KIND, find_kinds
from uniad_ray.perception.sampling.image_sample import ImageSample
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.spread import spread
from uniad_ray.perception.text.descriptions import check_class_names

OTHER: Final = "other"
"""Name of objects that belong to no kind."""

_MOST_OBJECTS: Final = 2000
_NAMES_KEYS: Final = {"part": "extractors.objects.config.names", "piece": "extractors.rare_objects.config.names"}
"""Keys of the names in the built-in profiles, by prefix."""


class PartNamerConfig(StrictModel):
    """Options of the namer.

    Attributes:
        segments: Field with the segments.
        vectors: Fields with vectors of the segments. Each field and the shape get a weight of 0, 1 or 2 in the
            similarity of objects; the fit chooses the weights with the most regular counts.
        prefix: Start of the discovered names; several namers need different ones.
        names: Display names by discovered name, such as `part-1: bolt`.
        images: Maximum number of normal images to use, sampled evenly.
        seed: Seed of the sample.
    """

    segments: str
    vectors: tuple[str, ...] = Field(min_length=1, max_length=3)
    prefix: str = Field(default="part", pattern=r"^[a-z]+$", max_length=20)
    names: Mapping[str, str] = Field(default_factory=dict)
    images: int = Field(default=256, ge=2, le=2000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _names_are_usable_and_distinct(self) -> Self:
        discovered = re.compile(rf"{self.prefix}-[1-9]\d*")
        unknown = sorted(name for name in self.names if name != OTHER and not discovered.fullmatch(name))
        if unknown:
            raise ValueError(
                f"names has unknown kinds {', '.join(unknown)}; use {self.prefix}-1, {self.prefix}-2, ... or {OTHER}"
            )
        kept = {name for name in self.names.values() if discovered.fullmatch(name)} - self.names.keys()
        check_class_names((*self.names.values(), *kept, *([] if OTHER in self.names else [OTHER])))
        return self


def names_overrides(path: str) -> list[str]:
    """Profile overrides that set the display names of object kinds from a YAML file.

    Args:
        path: The file; it maps discovered names to display names, such as `part-1: bolt`.

    Raises:
        ConfigError: As for `read_words`.
    """
    words = read_words(path, example="part-1: bolt")
    by_prefix: dict[str, dict[str, str]] = {prefix: {} for prefix in _NAMES_KEYS}
    for discovered, name in words.items():
        prefix = discovered.rpartition("-")[0]
        by_prefix[prefix if prefix in by_prefix else "part"][discovered] = name
    return [f"{_NAMES_KEYS[prefix]}={json.dumps(names)}" for prefix, names in by_prefix.items() if names]


class PartNamer:
    """Names segments `part-1`, `part-2` and so on, by kinds discovered in normal images.

    A segment gets the kind of its nearest neighbour among the normal segments, or `other` if that segment has no kind.
    Kinds are numbered by their mean area, the largest first.

    Provides `{name}/segments`: the same segments with names.
    """

    config_model: ClassVar[type[PartNamerConfig]] = PartNamerConfig

    def __init__(self, name: str, config: PartNamerConfig, device: str) -> None:  # noqa: ARG002
        """Creates an unfitted namer."""
        self.name = name
        self.config = config
        self.needs = frozenset([config.segments, *config.vectors])
        self.provides = self.fields_of(name, config)
        self._bank: _KindBank | None = None

    @classmethod
    def fields_of(cls, name: str, config: PartNamerConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/segments"})

    def fit(self, stream: PerceptionStream) -> None:
        """Finds the kinds in one pass; the order of the images does not matter.

        Args:
            stream: Batches of normal images.

        Raises:
            FitError: There are fewer than two images, or a vector is not finite.
        """
        sample: ImageSample[tuple[np.ndarray, ...]] = ImageSample(self.config.images, self.config.seed)
        for perception in stream():
            for row, row_key in enumerate(perception.row_keys):
                if sample.wants(row_key):
                    groups = self._groups(perception, row)
                    if not all(np.isfinite(group).all() for group in groups):
                        raise FitError(
                            f"{self.name}: image {row_key} has vectors that are not finite; remove the image or check "
                            "the weights"
                        )
                    sample.add(row_key, groups)
        images = sample.by_priority()
        if len(images) < 2:
            raise FitError(f"{self.name}: at least 2 normal images are needed, not {len(images)}; add some")
        numbers = np.cumsum([len(groups[0]) for groups in images])
        kept = images[: max(2, int(np.count_nonzero(numbers <= _MOST_OBJECTS)))]
        self._bank = _KindBank.fit(kept)

    def extract(self, perception: Perception) -> dict[str, list[Segments]]:
        """Names the segments of each image independently.

        Raises:
            FitError: The namer is not fitted.
        """
        bank = self._fitted()
        found = []
        for row, segments in enumerate(perception.segments[self.config.segments]):
            kinds = bank.kinds_of(self._groups(perception, row))
            found.append(segments.named([self._name(int(kind)) for kind in kinds]))
        return {f"{self.name}/segments": found}

    def state(self) -> State:
        """The normal objects and their kinds.

        Raises:
            FitError: The namer is not fitted.
        """
        return self._fitted().state()

    def restore(self, state: State) -> None:
        """Restores the normal objects and their kinds.

        Raises:
            BundleError: The state does not match this configuration.
        """
        try:
            self._bank = _KindBank.restored(state, len(self.config.vectors) + 1)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{self.name}: the bundle has no object kinds ({error}); fit again") from error

    def lineage(self) -> dict[str, Any]:
        """All options that affect the names."""
        return self.config.model_dump(mode="json")

    def _fitted(self) -> _KindBank:
        if self._bank is None:
            raise FitError(f"{self.name}: the namer is not fitted; fit it or load a bundle first")
        return self._bank

    def _name(self, kind: int) -> str:
        given = OTHER if kind == NO_KIND else f"{self.config.prefix}-{kind + 1}"
        return self.config.names.get(given, given)

    def _groups(self, perception: Perception, row: int) -> tuple[np.ndarray, ...]:
        segments = perception.segments[self.config.segments][row]
        return (*(perception.vectors[name][row] for name in self.config.vectors), segment_shapes(segments))


def segment_shapes(segments: Segments) -> np.ndarray:
    """Logarithms of the area, the long and the short half-axis of each segment.

    The area is a fraction of the image; the half-axes are fractions of the root of its area.

    Returns:
        float32, shape (n, 3).
    """
    shapes = np.zeros((len(segments), 3), dtype=np.float32)
    root = math.sqrt(math.prod(segments.size))
    pixel = 1.0 / (12 * root**2)
    for row, mask in enumerate(segments.masks()):
        places = (np.argwhere(mask) + 0.5) / root
        covariance = np.cov(places.T, bias=True) if len(places) > 1 else np.zeros((2, 2))
        short, long = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0.0) + pixel)
        shapes[row] = np.log([segments.areas[row], long, short])
    return shapes


class _KindBank:
    """Normal objects with their features and kinds."""

    def __init__(self, groups: Sequence[np.ndarray], weights: Sequence[int], kinds: np.ndarray) -> None:
        """Stores n objects; in an empty bank every object has no kind.

        Args:
            groups: Groups of features, each float32, shape (n, C).
            weights: Weight of each group.
            kinds: Kind of each object: int64, shape (n,).
        """
        self._groups = groups
        self._weights = weights
        self._kinds = kinds
        # Scales each group so that its root mean square deviation over normal objects equals its weight.
        self._factors = [weight / spread(group) for group, weight in zip(groups, weights, strict=True)]
        self._described = self._describe(groups)

    @classmethod
    def fit(cls, images: Sequence[tuple[np.ndarray, ...]]) -> Self:
        """Finds the kinds with the weights of the groups that give the most regular counts."""
        groups = [np.concatenate(each) for each in zip(*images, strict=True)]
        owners = np.repeat(np.arange(len(images)), [len(each[0]) for each in images])
        none = np.full(len(owners), NO_KIND)
        best = max(
            (
                (*find_kinds(cls(groups, weights, none)._described, owners, len(images)), weights)
                for weights in _weightings(len(groups))
            ),
            key=lambda found: found[1],
        )
        return cls(groups, best[2], _largest_first(best[0], groups[-1][:, 0]))

    def kinds_of(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        """The kind of the nearest normal object of each object: int64, shape (n,)."""
        if not len(self._kinds):
            return np.full(len(groups[0]), NO_KIND)
        return np.asarray(self._kinds[cdist(self._describe(groups), self._described).argmin(axis=1)])

    def state(self) -> State:
        """The objects as a state."""
        arrays = {f"group_{number}": group for number, group in enumerate(self._groups)}
        return State(arrays={**arrays, "kinds": self._kinds}, document={"weights": list(self._weights)})

    @classmethod
    def restored(cls, state: State, groups: int) -> Self:
        """Restores the objects.

        Raises:
            KeyError: A group is missing.
            ValueError: The arrays have inconsistent lengths.
        """
        found = [np.asarray(state.arrays[f"group_{number}"]) for number in range(groups)]
        kinds, weights = np.asarray(state.arrays["kinds"]), [int(weight) for weight in state.document["weights"]]
        if len({len(each) for each in (*found, kinds)}) != 1 or len(weights) != groups:
            raise ValueError("its arrays have inconsistent lengths")
        return cls(found, weights, kinds)

    def _describe(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(
            [group * factor for group, factor in zip(groups, self._factors, strict=True) if factor], axis=1
        )


def _weightings(groups: int) -> Iterator[tuple[int, ...]]:
    """All combinations of the weights 0, 1 and 2, without multiples of each other."""
    return (weights for weights in itertools.product(range(3), repeat=groups) if 1 in weights)


def _largest_first(kinds: np.ndarray, log_areas: np.ndarray) -> np.ndarray:
    """Numbers the kinds by their mean area, the largest first."""
    count = int(kinds.max(initial=NO_KIND)) + 1
    means = [float(log_areas[kinds == kind].mean()) for kind in range(count)]
    numbers = np.full(count + 1, NO_KIND)
    numbers[np.argsort([-mean for mean in means], kind="stable")] = np.arange(count)
    return np.asarray(numbers[kinds])
