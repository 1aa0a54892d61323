"""The text memory: compares a description with the most similar one of the normal images (TMUAD)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Literal, Self

import numpy as np
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.shared.anomaly_map import anomaly_maps
from uniad_ray.experts.shared.class_coverage import class_coverage
from uniad_ray.experts.text.description_comparison import Difference, compare_descriptions
from uniad_ray.experts.text.gestalt import GestaltIndex, Match
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.sampling.image_sample import ImageSample
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.descriptions import Description

_MOST_REASONS: Final = 3
_MOST_COMPARED: Final = 500
# A difference that at most about the square root of all normal images have.
_ODD: Final = 0.5


class TextMemoryConfig(StrictModel):
    """Options of the text memory.

    Attributes:
        text: Field with canonical descriptions.
        segments: Field with the described named segments.
        matching: `strict` compares category, count, position and size; `relaxed` only the category, which is better
            with few normal images (section V-B).
        image_score: `maximum` of the map, as in the paper; `sum` of the differences, which separates one difference
            from several; or `gestalt`, one minus the ratio of the whole texts, a baseline without classes.
        weighting: `equal`, as in the paper; or `rarity`, which gives differences that are common among normal images
            less weight: if parts may lie anywhere, their places mean nothing.
        images: Maximum number of normal images to keep, sampled evenly.
        map_size: Side of the evidence map.
        smoothing: Standard deviation of the map's Gaussian, map pixels; 0 disables smoothing.
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
    """Compares the description of an image with the most similar normal one (section III-C.1)."""

    config_model: ClassVar[type[TextMemoryConfig]] = TextMemoryConfig

    def __init__(self, name: str, config: TextMemoryConfig) -> None:
        """Creates an unfitted expert."""
        self.name = name
        self._config = config
        self.needs = frozenset({config.text, config.segments})
        self._texts: list[str] = []
        self._occupancy: dict[str, np.ndarray] = {}
        self._index: GestaltIndex | None = None
        self._sizes: Mapping[str, tuple[float, float]] = {}
        self._weights: dict[str, float] = {}

    def fit(self, stream: PerceptionStream) -> None:
        """Stores descriptions and all places of each class; the order of the images has no effect.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: There are no images.
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
            raise FitError(f"{self.name}: there are no normal images; the text memory needs at least one")
        self._occupancy = occupancy
        self._remember(texts)
        if self._config.weighting == "rarity":
            self._weights = self._rarities(texts[:_MOST_COMPARED])

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores: the sum of the differences; or the largest, which is the map's maximum before smoothing; or the
            dissimilarity of the whole text. Each is 0 for a text in the memory. Maps paint each differing class with
            its strength, and a missing class at all its normal places. Up to three reasons per image.

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
        """The descriptions, and the occupancy of each class: bool, shape (classes, map, map).

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
        """Restores a fitted expert; its scores are exactly those of the saved one.

        Raises:
            BundleError: The state has no text memory of this configuration.
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
            raise BundleError(f"{name}: the bundle has no text memory of this configuration; fit the category again")
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
        """Weight in 0..1 by kind of difference: 1 if it never occurs among normal images, about 0 if it is common."""
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
