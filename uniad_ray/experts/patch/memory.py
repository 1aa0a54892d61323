"""The patch memory: distance of each patch in an image to the patches of normal images.

It is TMUAD's third memory bank (section III-B.3 and eq. 4), with PatchCore's neighbourhood pooling and coreset. Eq. 4
is printed with the farthest neighbour. The nearest one is meant, as in eq. 3, and implemented.
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
from uniad_ray.experts.shared.field_checks import FieldShapes, require_finite
from uniad_ray.experts.shared.grid_evidence import GridEvidenceConfig, cells_in_score, grid_evidence
from uniad_ray.experts.shared.memory_bank import Selection, select_bank
from uniad_ray.experts.shared.patch_features import as_vectors, patch_features
from uniad_ray.experts.shared.search.flat_search import Distance
from uniad_ray.experts.shared.search.nearest import FLAT, NearestNeighbours, VectorIndexConfig
from uniad_ray.experts.shared.structural_features import Neighbourhood
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.grids import largest_grid
from uniad_ray.perception.sampling.candidate_sample import CandidateSample

_DTYPES: dict[str, type[np.floating]] = {"float16": np.float16, "float32": np.float32}


class PatchMemoryConfig(GridEvidenceConfig):
    """Options of the patch memory.

    Attributes:
        fields: Fields to concatenate: levels of a pyramid or blocks of a transformer, in any mix. For a separate bank
            per encoder, define one expert for each, and a group of them in `fusion.groups`.
        grid: Side of the common patch grid; None uses the largest grid among the fields.
        normalise_fields: Scale each field to unit length at each cell before pooling. This removes the strength of a
            feature, which often indicates an anomaly.
        neighbourhood: Side of the pooled window, odd; zero padding makes border patches differ from inner ones.
        distance: `l2`, or `cosine` (TMUAD). Cosine ignores the strength of a feature.
        neighbours: Number of nearest vectors in the bank to average.
        index: Search for the nearest vectors.
        selection: How the bank is selected from the candidates.
        memory_size: Maximum number of vectors in the bank; unused with `all`. The time of a flat search grows with it.
        candidates: Maximum number of patch vectors in memory while fitting, sampled evenly over all normal images.
        projection: Number of dimensions of the random projection for the distances of the coreset.
        storage: Data type of the stored bank; vectors are rounded to it in the fit, so a reload keeps the scores.
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
    """Candidates of `PatchMemory` from a part of the normal images.

    Attributes:
        candidates: A sample of the patch vectors.
        shapes: Shapes of the source fields.
    """

    candidates: CandidateSample
    shapes: FieldShapes


class PatchMemory:
    """Distance of each patch to the nearest patches of normal images (TMUAD, eq. 4; PatchCore).

    Each image is processed alone in fit and scoring: results do not depend on the batches.
    """

    config_model: ClassVar[type[PatchMemoryConfig]] = PatchMemoryConfig

    def __init__(self, name: str, config: PatchMemoryConfig) -> None:
        """Creates an unfitted expert."""
        self.name = name
        self.needs = frozenset(config.fields)
        self._config = config
        self._shapes = FieldShapes(name, self.needs)
        self._nearest: NearestNeighbours | None = None

    def fit(self, stream: PerceptionStream) -> None:
        """Builds the bank in one pass; order and batching of the images have no effect.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: There are no images, a feature is not finite or beyond float16, or the shape of a field changes.
        """
        self.fit_samples([self.sample(stream)])

    def sample(self, stream: PerceptionStream) -> PatchSample:
        """Samples candidates from a part of the normal images, in bounded memory.

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
        """Builds the bank from samples of parts of the normal images, for instance from several workers.

        Args:
            samples: Samples of disjoint parts; their number and order have no effect, the bank equals that of `fit`.

        Raises:
            FitError: There are no images, or the shape of a field differs between the parts.
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
            Scores and maps in units of the distance, and one sentence per image with the position of the map's maximum.
            A feature that is not finite makes the image's score NaN.

        Raises:
            BundleError: The fields do not have the shapes of the fit.
            FitError: The expert is not fitted.
        """
        nearest = self._fitted()
        self._shapes.check(perception)
        grid = self._grid(perception)
        grids = np.empty((len(perception), *grid), dtype=np.float32)
        for row in range(len(perception)):
            vectors = self._patch_vectors(perception, row)
            exact = cells_in_score(len(vectors), self._config)
            grids[row] = nearest.distances(vectors, exact).reshape(grid)
        return grid_evidence(self.name, grids, self._config)

    def state(self) -> State:
        """The bank in its storage type, shape (M, C), its codes or clusters, and the shapes (C, h, w) of its fields.

        Raises:
            FitError: The expert is not fitted.
        """
        return State(arrays=self._fitted().arrays(), document={"shapes": self._shapes.document()})

    @classmethod
    def from_state(cls, name: str, config: PatchMemoryConfig, state: State) -> Self:
        """Restores a fitted expert; its scores are exactly those of the saved one.

        Raises:
            BundleError: The state lacks a bank of shape (M, C), its codes or clusters, or the shapes of its fields.
        """
        shapes = state.document.get("shapes")
        if not isinstance(shapes, dict):
            raise BundleError(f"{name}: the bundle has no shapes of the patch bank's fields; fit the category again")
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
