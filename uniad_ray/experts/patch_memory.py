"""The patch memory: how far is each patch of an image from the patches of normal images.

TMUAD's third memory bank (section III-B.3 and eq. 4) with PatchCore's neighbourhood pooling and coreset. Eq. 4 is
printed with the farthest neighbour; what is meant, and built, is the nearest one, as in eq. 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.field_checks import FieldShapes, require_finite
from uniad_ray.experts.flat_search import Distance
from uniad_ray.experts.grid_evidence import GridEvidenceConfig, grid_evidence
from uniad_ray.experts.memory_bank import Selection, select_bank
from uniad_ray.experts.nearest import FLAT, NearestNeighbours, VectorIndexConfig
from uniad_ray.experts.patch_features import as_vectors, patch_features
from uniad_ray.experts.structural_features import Neighbourhood
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.candidate_sample import CandidateSample
from uniad_ray.perception.grids import largest_grid

_DTYPES: dict[str, type[np.floating]] = {"float16": np.float16, "float32": np.float32}


class PatchMemoryConfig(GridEvidenceConfig):
    """Options of the patch memory.

    Attributes:
        fields: The fields that are concatenated: levels of a pyramid or blocks of a transformer, in any mix. For a bank
            of its own for each encoder, make an expert of each, and a group of them in `fusion.groups`.
        grid: Side of the common patch grid; None takes the largest grid among the fields.
        normalise_fields: Scale every field to unit length at every cell before pooling. Takes away how strong a
            feature is, which is often what tells an anomaly.
        neighbourhood: Side of the pooled window, odd; zero padding, so that border patches differ from inner ones.
        distance: `l2`, or `cosine` (TMUAD). Cosine ignores how strong a feature is.
        neighbours: How many nearest vectors of the bank are averaged.
        index: How they are found.
        selection: How the bank is chosen out of the candidates.
        memory_size: The most vectors in the bank; unused with `all`. Scoring time grows with it.
        candidates: The most patch vectors held in memory while fitting, sampled evenly over all normal images.
        projection: Dimensions of the random projection in which the coreset measures distances.
        storage: Type in which the bank is kept; it is rounded to it at fit, so scores survive a round trip.
        seed: Seed of the sample, the projection and k-means.
    """

    fields: tuple[str, ...] = Field(default=("pyramid/level2", "pyramid/level3"), min_length=1)
    grid: int | None = Field(default=None, ge=1, le=512)
    normalise_fields: bool = False
    neighbourhood: Neighbourhood = 3
    distance: Distance = "l2"
    neighbours: int = Field(default=1, ge=1, le=100)
    index: VectorIndexConfig = FLAT
    selection: Selection = "coreset"
    memory_size: int = Field(default=2000, ge=1, le=1_000_000)
    candidates: int = Field(default=100_000, ge=1, le=20_000_000)
    projection: int = Field(default=64, ge=1)
    storage: Literal["float16", "float32"] = "float16"
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


@dataclass(frozen=True)
class PatchSample:
    """What `PatchMemory` takes of some normal images.

    Attributes:
        candidates: A sample of their patch vectors.
        shapes: Shapes of the fields behind them.
    """

    candidates: CandidateSample
    shapes: FieldShapes


class PatchMemory:
    """Distance of every patch to the nearest patches of normal images (TMUAD eq. 4; PatchCore).

    Every image is worked on alone, at fit and at scoring, so no result depends on how images are batched.
    """

    config_model: ClassVar[type[PatchMemoryConfig]] = PatchMemoryConfig

    def __init__(self, name: str, config: PatchMemoryConfig) -> None:
        """An expert that has not been fitted yet."""
        self.name = name
        self.needs = frozenset(config.fields)
        self._config = config
        self._shapes = FieldShapes(name, self.needs)
        self._nearest: NearestNeighbours | None = None

    def fit(self, stream: PerceptionStream) -> None:
        """Builds the bank in one pass; the same images give the same bank in any order and any batching.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: No image came, a feature is not finite or beyond float16, or the shape of a field changes.
        """
        self.fit_samples([self.sample(stream)])

    def sample(self, stream: PerceptionStream) -> PatchSample:
        """Takes candidates from some of the normal images, in bounded memory.

        Args:
            stream: The perceptions of these images.

        Raises:
            FitError: A feature is not finite or beyond float16, or the shape of a field changes.
        """
        sample = PatchSample(
            CandidateSample(self._config.candidates, self._config.seed), FieldShapes(self.name, self.needs)
        )
        for perception in stream():
            sample.shapes.observe(perception)
            for row, row_key in enumerate(perception.row_keys):
                vectors = self._patch_vectors(perception, row)
                self._check_range(vectors, row_key)
                sample.candidates.add(row_key, vectors)
        return sample

    def fit_samples(self, samples: Iterable[PatchSample]) -> None:
        """Builds the bank from samples of parts of the normal images, such as several workers make.

        Args:
            samples: Samples of parts that share no image; in whatever parts and order, the bank is that of `fit`.

        Raises:
            FitError: No image came, or the shape of a field differs between the parts.
        """
        config = self._config
        shapes = FieldShapes(self.name, self.needs)
        merged = CandidateSample(config.candidates, config.seed)
        for sample in samples:
            shapes.merge(sample.shapes)
            merged.merge(sample.candidates)
        candidates = merged.vectors()
        if not len(candidates):
            raise FitError(f"{self.name}: there are no normal images to fit on; add some to the category")
        bank = select_bank(
            candidates,
            config.selection,
            config.memory_size,
            projection=config.projection,
            spherical=config.distance == "cosine",
            seed=config.seed,
        )
        self._shapes = shapes
        self._nearest = NearestNeighbours(
            bank.astype(_DTYPES[config.storage]), config.distance, config.neighbours, config.index
        )

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores and maps in units of the distance, and one sentence an image: where the map is highest. A feature
            that is not finite makes the image's score NaN.

        Raises:
            BundleError: The fields do not have the shapes that the bank was made from.
            FitError: The expert is not fitted.
        """
        nearest = self._fitted()
        self._shapes.check(perception)
        grid = self._grid(perception)
        grids = np.empty((len(perception), *grid), dtype=np.float32)
        for row in range(len(perception)):
            grids[row] = nearest.distances(self._patch_vectors(perception, row)).reshape(grid)
        return grid_evidence(self.name, grids, self._config)

    def state(self) -> State:
        """The bank, in its storage type, shape (M, C), with its codes, if any, and the shapes (C, h, w) of its fields.

        Raises:
            FitError: The expert is not fitted.
        """
        return State(arrays=self._fitted().arrays(), document={"shapes": self._shapes.document()})

    @classmethod
    def from_state(cls, name: str, config: PatchMemoryConfig, state: State) -> Self:
        """Restores a fitted expert; it gives exactly the scores of the one that was saved.

        Raises:
            BundleError: The state holds no bank of shape (M, C), or not its codes or the shapes behind it.
        """
        shapes = state.document.get("shapes")
        if not isinstance(shapes, dict):
            raise BundleError(f"{name}: the bundle holds no shapes of the patch bank's fields; fit the category again")
        expert = cls(name, config)
        expert._shapes = FieldShapes.from_document(name, shapes)
        expert._nearest = NearestNeighbours.from_state(name, state, config.distance, config.neighbours, config.index)
        return expert

    def _fitted(self) -> NearestNeighbours:
        if self._nearest is None:
            raise FitError(f"{self.name}: the patch memory is not fitted; fit it or load a bundle first")
        return self._nearest

    def _grid(self, perception: Perception) -> tuple[int, int]:
        if self._config.grid is not None:
            return self._config.grid, self._config.grid
        return largest_grid(perception.fields, self._config.fields)

    def _patch_vectors(self, perception: Perception, row: int) -> torch.Tensor:
        """The patch vectors of one image of the batch, float32, shape (P, C)."""
        with torch.inference_mode():
            features = patch_features(
                {name: perception.fields[name][row : row + 1].contiguous() for name in self._config.fields},
                self._config.fields,
                grid=self._grid(perception),
                neighbourhood=self._config.neighbourhood,
                normalise=self._config.normalise_fields,
            )
            return as_vectors(features[0])

    def _check_range(self, vectors: torch.Tensor, row_key: str) -> None:
        require_finite(self.name, row_key, vectors)
        if float(vectors.abs().amax()) > float(np.finfo(_DTYPES[self._config.storage]).max):
            raise FitError(
                f"{self.name}: features of image {row_key} are too large for {self._config.storage}; "
                "set storage to float32"
            )
