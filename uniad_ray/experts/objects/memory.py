"""The object memory: distance of each object in an image to the objects of normal images (TMUAD, eq. 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.shared.anomaly_map import anomaly_maps
from uniad_ray.experts.shared.field_checks import require_finite
from uniad_ray.experts.shared.memory_bank import Selection, select_bank
from uniad_ray.experts.shared.search.nearest import FLAT, NearestNeighbours, VectorIndexConfig
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.sampling.candidate_sample import CandidateSample
from uniad_ray.perception.segments import Segments

_MOST_REASONS = 3
_UNRELATED = 1.0
"""Distance of an object if no normal image has one: that of vectors at a right angle."""


class ObjectMemoryConfig(StrictModel):
    """Options of the object memory.

    Attributes:
        segments: Field with the segments.
        vectors: Field with one vector per segment.
        overlap: Value of a pixel in several segments: the `sum` of their distances (eq. 3), or the `maximum`.
        selection: How the bank is selected from the vectors of all normal objects.
        memory_size: Maximum number of vectors in the bank; unused with `all`.
        candidates: Maximum number of vectors in memory while fitting, sampled evenly over all normal objects.
        index: Search for the most similar vector in the bank.
        map_size: Side of the evidence map.
        smoothing: Standard deviation of the map's Gaussian, map pixels; 0 disables smoothing.
        seed: Seed of the sample and of k-means.
    """

    segments: str
    vectors: str
    overlap: Literal["sum", "maximum"] = "maximum"
    selection: Selection = "kmeans"
    memory_size: int = Field(default=1000, ge=1, le=1_000_000)
    candidates: int = Field(default=100_000, ge=1, le=10_000_000)
    index: VectorIndexConfig = FLAT
    map_size: int = Field(default=64, ge=1, le=2048)
    smoothing: float = Field(default=1.0, ge=0.0, le=100.0)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class ObjectMemory:
    """One minus the cosine between each object and the most similar normal one, painted on its mask (TMUAD, eq. 3)."""

    config_model: ClassVar[type[ObjectMemoryConfig]] = ObjectMemoryConfig

    def __init__(self, name: str, config: ObjectMemoryConfig) -> None:
        """Creates an unfitted expert."""
        self.name = name
        self.needs = frozenset({config.segments, config.vectors})
        self._config = config
        self._is_fitted = False
        # None if no normal image has an object.
        self._nearest: NearestNeighbours | None = None

    def fit(self, stream: PerceptionStream) -> None:
        """Builds the bank in one pass; order and batching of the images have no effect.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: A vector is not finite.
        """
        self.fit_samples([self.sample(stream)])

    def sample(self, stream: PerceptionStream) -> CandidateSample:
        """Samples candidates from a part of the normal images, in bounded memory.

        Args:
            stream: The perceptions of these images.

        Raises:
            FitError: A vector is not finite.
        """
        sample = CandidateSample(self._config.candidates, self._config.seed)
        for perception in stream():
            for row_key, vectors in zip(perception.row_keys, perception.vectors[self._config.vectors], strict=True):
                tensor = torch.from_numpy(vectors)
                require_finite(self.name, row_key, tensor)
                if len(tensor):
                    sample.add(row_key, tensor)
        return sample

    def fit_samples(self, samples: Iterable[CandidateSample]) -> None:
        """Builds the bank from samples of parts of the normal images, for instance from several workers.

        Args:
            samples: Samples of disjoint parts; their number and order have no effect, the bank equals that of `fit`.
        """
        config = self._config
        merged = CandidateSample(config.candidates, config.seed)
        for sample in samples:
            merged.merge(sample)
        candidates = merged.vectors()
        self._is_fitted = True
        self._nearest = None
        if len(candidates):
            bank = select_bank(candidates, config.selection, config.memory_size, spherical=True, seed=config.seed)
            self._nearest = NearestNeighbours(bank, "cosine", index=config.index)

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores: the maximum of the map before smoothing, 0 for an image without objects. Maps: the distances, each
            in 0..2, painted on the objects; 1 for any object if no normal image has one. One sentence for each of up to
            three objects with the largest distances. A vector that is not finite makes the score NaN.

        Raises:
            BundleError: The vectors do not have the length of the fit.
            FitError: The expert is not fitted.
        """
        self._check_fitted()
        side = self._config.map_size
        scores = np.zeros(len(perception), dtype=np.float32)
        maps = np.zeros((len(perception), side, side), dtype=np.float32)
        reasons: list[list[str]] = []
        objects = zip(perception.segments[self._config.segments], perception.vectors[self._config.vectors], strict=True)
        for row, (segments, vectors) in enumerate(objects):
            distances = self._distances(vectors)
            maps[row] = self._painted(segments, np.nan_to_num(distances))
            scores[row] = maps[row].max() if np.isfinite(distances).all() else np.nan
            reasons.append(_reasons(segments, distances))
        return Evidence(scores, anomaly_maps(maps, side, self._config.smoothing), reasons)

    def state(self) -> State:
        """The bank, float32, shape (M, C), and its codes, if any; no bank if no normal image has an object.

        Raises:
            FitError: The expert is not fitted.
        """
        self._check_fitted()
        has_objects = self._nearest is not None
        return State(arrays=self._nearest.arrays() if self._nearest else {}, document={"has_objects": has_objects})

    @classmethod
    def from_state(cls, name: str, config: ObjectMemoryConfig, state: State) -> Self:
        """Restores a fitted expert; its scores are exactly those of the saved one.

        Raises:
            BundleError: The state lacks a bank of shape (M, C) or its codes.
        """
        expert = cls(name, config)
        expert._is_fitted = True
        if state.document.get("has_objects", True):
            expert._nearest = NearestNeighbours.from_state(name, state, "cosine", index=config.index)
        return expert

    def _check_fitted(self) -> None:
        if not self._is_fitted:
            raise FitError(f"{self.name}: the object memory is not fitted; fit it or load a bundle first")

    def _distances(self, vectors: np.ndarray) -> np.ndarray:
        """The distance of each object of an image: float32, shape (n,)."""
        if self._nearest is None:
            return np.full(len(vectors), _UNRELATED, dtype=np.float32)
        if vectors.shape[1] != self._nearest.dimension:
            raise BundleError(
                f"{self.name}: the bank has vectors of length {self._nearest.dimension}, but the image of length "
                f"{vectors.shape[1]}; score with the networks of the bundle, or fit again"
            )
        return self._nearest.distances(torch.from_numpy(vectors)) if len(vectors) else np.zeros(0, np.float32)

    def _painted(self, segments: Segments, distances: np.ndarray) -> np.ndarray:
        side = self._config.map_size
        join = np.add if self._config.overlap == "sum" else np.maximum
        painted = np.zeros((side, side), dtype=np.float32)
        for mask, distance in zip(segments.masks(), distances, strict=True):
            painted = join(painted, evenly_spaced(mask, side, side) * distance)
        return painted


def _reasons(segments: Segments, distances: np.ndarray) -> list[str]:
    farthest = np.argsort(-np.nan_to_num(distances), kind="stable")[:_MOST_REASONS]
    centres = (segments.boxes[:, :2] + segments.boxes[:, 2:]) / 2
    names = segments.names or ("an object",) * len(segments)
    return [
        f"{names[one]} at row {centres[one, 0]:.2f}, column {centres[one, 1]:.2f} is {distances[one]:.3f} from the "
        "most similar normal object"
        for one in farthest
    ]
