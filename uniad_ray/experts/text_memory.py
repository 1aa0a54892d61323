"""The text memory: descriptions of normal images, the one that is most like an image, and what differs (TMUAD)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Literal, Self

import numpy as np
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.anomaly_map import anomaly_maps
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.class_coverage import class_coverage
from uniad_ray.experts.description_comparison import Difference, compare_descriptions
from uniad_ray.experts.gestalt import GestaltIndex, Match
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.descriptions import Description
from uniad_ray.perception.image_sample import ImageSample
from uniad_ray.perception.segments import Segments

_MOST_REASONS: Final = 3
_MOST_COMPARED: Final = 500
# A difference that at most about the square root of all normal images have.
_ODD: Final = 0.5


class TextMemoryConfig(StrictModel):
    """Options of the text memory.

    Attributes:
        text: Field with canonical descriptions.
        segments: Field with the named segments that they describe.
        matching: `strict` compares category, count, position and size; `relaxed` the category alone, which is better
            with few normal images (section V-B).
        image_score: `maximum` of the map, as in the paper; the `sum` of the differences, which tells one difference
            from several; or `gestalt`, one minus the ratio of the whole texts, to see what comparing classes is worth.
        weighting: `equal` as in the paper; or `rarity`, which counts a difference the less, the more often normal
            images differ so from each other: where parts may lie in any place, a place says nothing.
        images: The most normal images that are remembered, sampled evenly.
        map_size: Side of the evidence map.
        smoothing: Deviation of the map's Gaussian in map pixels; 0 switches it off.
        seed: Seed of the sample.
    """

    text: str
    segments: str
    matching: Literal["strict", "relaxed"] = "strict"
    image_score: Literal["maximum", "sum", "gestalt"] = "sum"
    weighting: Literal["equal", "rarity"] = "rarity"
    images: int = Field(default=10_000, ge=1, le=100_000)
    map_size: int = Field(default=64, ge=1, le=2048)
    smoothing: float = Field(default=1.0, ge=0.0, le=100.0)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class TextMemory:
    """Compares the description of an image with the normal one that is most like it (section III-C.1)."""

    config_model: ClassVar[type[TextMemoryConfig]] = TextMemoryConfig

    def __init__(self, name: str, config: TextMemoryConfig) -> None:
        """An expert that has not been fitted yet."""
        self.name = name
        self._config = config
        self.needs = frozenset({config.text, config.segments})
        self._texts: list[str] = []
        self._occupancy: dict[str, np.ndarray] = {}
        self._index: GestaltIndex | None = None
        self._sizes: Mapping[str, tuple[float, float]] = {}
        self._weights: dict[str, float] = {}

    def fit(self, stream: PerceptionStream) -> None:
        """Remembers descriptions, and where each class ever stood; the order of the images does not matter.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: No image came.
        """
        sample: ImageSample[str] = ImageSample(self._config.images, self._config.seed)
        occupancy: dict[str, np.ndarray] = {}
        for perception in stream():
            for row_key, text in zip(perception.row_keys, perception.texts[self._config.text], strict=True):
                sample.add(row_key, text)
            for segments in perception.segments[self._config.segments]:
                for name, cells in class_coverage(segments, self._config.map_size).items():
                    occupancy[name] = occupancy[name] | cells if name in occupancy else cells
        texts = sample.by_priority()
        if not texts:
            raise FitError(f"{self.name}: no normal image came; the text memory needs at least one")
        self._occupancy = occupancy
        self._remember(texts)
        if self._config.weighting == "rarity":
            self._weights = self._rarities(texts[:_MOST_COMPARED])

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores: the sum of the strengths of the differences; or the greatest of them, which is the map's maximum
            before smoothing; or how unlike the whole text is; each 0 for a text of the memory. Maps that paint each
            class that differs with its strength, and where a missing class ever stood. Up to three reasons an image.

        Raises:
            FitError: The expert is not fitted.
        """
        side = self._config.map_size
        scores = np.zeros(len(perception), dtype=np.float32)
        maps = np.zeros((len(perception), side, side), dtype=np.float32)
        reasons: list[list[str]] = []
        described = zip(perception.texts[self._config.text], perception.segments[self._config.segments], strict=True)
        for row, (text, segments) in enumerate(described):
            nearest = self._fitted().nearest(text)
            differences = self._compare(Description.parse(text), Description.parse(self._texts[nearest.position]))
            scores[row] = self._image_score(nearest, [self._strength(one) for one in differences])
            maps[row] = self._painted(differences, segments)
            odd = [one for one in differences if self._weight(one) >= _ODD]
            reasons.append([one.reason for one in sorted(odd, key=lambda one: -self._strength(one))[:_MOST_REASONS]])
        return Evidence(scores, anomaly_maps(maps, side, self._config.smoothing), reasons)

    def state(self) -> State:
        """The descriptions; and where each class ever stood: occupancy, bool, shape (classes, map, map).

        Raises:
            FitError: The expert is not fitted.
        """
        self._fitted()
        side = self._config.map_size
        names = sorted(self._occupancy)
        occupancy = np.array([self._occupancy[name] for name in names], dtype=bool).reshape(len(names), side, side)
        document = {"texts": self._texts, "classes": names, "weights": self._weights}
        return State(arrays={"occupancy": occupancy}, document=document)

    @classmethod
    def from_state(cls, name: str, config: TextMemoryConfig, state: State) -> Self:
        """Restores a fitted expert; it gives exactly the scores of the one that was saved.

        Raises:
            BundleError: The state holds no text memory of this configuration.
        """
        expert = cls(name, config)
        occupancy = state.arrays.get("occupancy")
        texts, classes = state.document.get("texts"), state.document.get("classes")
        weights = state.document.get("weights")
        if (
            not isinstance(texts, list)
            or not texts
            or not isinstance(classes, list)
            or not isinstance(weights, dict)
            or occupancy is None
            or occupancy.shape != (len(classes), config.map_size, config.map_size)
        ):
            raise BundleError(f"{name}: the bundle holds no text memory of this configuration; fit the category again")
        expert._occupancy = dict(zip(classes, occupancy.astype(bool), strict=True))
        expert._remember(texts)
        expert._weights = weights
        return expert

    def _remember(self, texts: list[str]) -> None:
        self._texts = texts
        self._index = GestaltIndex(texts)
        sizes: dict[str, list[float]] = {}
        for text in dict.fromkeys(texts):
            for one in Description.parse(text).classes:
                sizes.setdefault(one.name, []).append(one.size)
        self._sizes = {name: (min(each), max(each)) for name, each in sizes.items()}

    def _fitted(self) -> GestaltIndex:
        if self._index is None:
            raise FitError(f"{self.name}: the text memory is not fitted; fit it or load a bundle first")
        return self._index

    def _image_score(self, nearest: Match, strengths: Sequence[float]) -> float:
        if self._config.image_score == "gestalt":
            return 1.0 - nearest.ratio
        return sum(strengths) if self._config.image_score == "sum" else max(strengths, default=0.0)

    def _compare(self, found: Description, normal: Description) -> list[Difference]:
        return compare_descriptions(found, normal, self._sizes, relaxed=self._config.matching == "relaxed")

    def _rarities(self, texts: Sequence[str]) -> dict[str, float]:
        """Weight in 0..1 by kind of difference: 1 for one that no normal image has to the others, about 0 for usual."""
        if len(texts) < 2:
            return {}
        index = GestaltIndex(texts)
        counts: Counter[str] = Counter()
        for text in texts:
            nearest = Description.parse(texts[index.nearest_other(text).position])
            counts.update({_kind(one) for one in self._compare(Description.parse(text), nearest)})
        most = np.log(len(texts) + 2)
        return {kind: float(1.0 - np.log(count + 1) / most) for kind, count in sorted(counts.items())}

    def _weight(self, one: Difference) -> float:
        return self._weights.get(_kind(one), 1.0)

    def _strength(self, one: Difference) -> float:
        return one.strength * self._weight(one)

    def _painted(self, differences: Sequence[Difference], segments: Segments) -> np.ndarray:
        painted = np.zeros((self._config.map_size, self._config.map_size), dtype=np.float32)
        coverage = class_coverage(segments, self._config.map_size) if differences else {}
        for one in differences:
            where = self._occupancy.get(one.name) if one.aspect == "missing" else coverage.get(one.name)
            if where is not None:
                painted = np.maximum(painted, where * np.float32(self._strength(one)))
        return painted


def _kind(one: Difference) -> str:
    return f"{one.aspect} of {one.name}"
