"""The relations expert: how many parts there are, where they stand, and what goes with what.

Beyond UniAD: TMUAD (section V-A) names the lack of relations between parts as the reason for its failures. Parts are
named segments; which of their relations hold is learned from normal images alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

import numpy as np
import torch
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.anomaly_map import anomaly_maps
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.class_coverage import class_coverage
from uniad_ray.experts.field_checks import require_finite
from uniad_ray.experts.instance_bank import InstanceBank
from uniad_ray.experts.instances import Instances, describe_instances
from uniad_ray.experts.part_grid import PartGrid
from uniad_ray.experts.relation_bank import Deviation
from uniad_ray.experts.relation_reasons import relation_reasons
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.image_sample import ImageSample
from uniad_ray.perception.segments import Segments

_MOST_INSTANCES: Final = 2000
# The number of pairs grows with the square of it.
_MOST_INSTANCES_OF_AN_IMAGE: Final = 64


class RelationsConfig(StrictModel):
    """Options of the relations expert.

    Attributes:
        segments: Field with named segments; of more than 64 in an image the largest are compared.
        vectors: Fields with vectors of the segments, which say what one looks like.
        left_out: Names that stand for no kind of part; of segments with them only the look is compared.
        images: The most normal images that are remembered, sampled evenly.
        map_size: Side of the evidence map.
        smoothing: Deviation of the map's Gaussian in map pixels; 0 switches it off.
        seed: Seed of the sample.
    """

    segments: str
    vectors: tuple[str, ...] = Field(min_length=1, max_length=3)
    left_out: tuple[str, ...] = ("other",)
    images: int = Field(default=256, ge=2, le=2000)
    map_size: int = Field(default=64, ge=1, le=2048)
    smoothing: float = Field(default=1.0, ge=0.0, le=100.0)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class Relations:
    """How far the relations between the parts of an image are from those in normal images."""

    config_model: ClassVar[type[RelationsConfig]] = RelationsConfig

    def __init__(self, name: str, config: RelationsConfig) -> None:
        """An expert that has not been fitted yet."""
        self.name = name
        self._config = config
        self.needs = frozenset({config.segments, *config.vectors})
        self._occupancy: dict[str, np.ndarray] = {}
        self._bank: InstanceBank | None = None

    def fit(self, stream: PerceptionStream) -> None:
        """Remembers the instances and where each kind stands; the order of the images does not matter.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: There are fewer than two images, the segments have no names, or a vector is not finite.
        """
        sample: ImageSample[tuple[dict[str, np.ndarray], Instances]] = ImageSample(
            self._config.images, self._config.seed
        )
        for perception in stream():
            for row, row_key in enumerate(perception.row_keys):
                segments, vectors = self._compared(perception, row)
                if len(segments.names) < len(segments):
                    raise FitError(
                        f"{self.name}: {self._config.segments} has segments without names; give the field of a namer"
                    )
                for each in vectors:
                    require_finite(self.name, row_key, torch.from_numpy(each))
                if sample.wants(row_key):
                    coverage = class_coverage(segments, self._config.map_size)
                    instances = describe_instances(segments, vectors, perception.images[row], self._config.left_out)
                    sample.add(row_key, (coverage, instances))
        images = sample.by_priority()
        if len(images) < 2:
            raise FitError(f"{self.name}: at least 2 normal images are needed, not {len(images)}; add some")
        numbers = np.cumsum([len(instances) for _, instances in images])
        kept = images[: max(2, int(np.count_nonzero(numbers <= _MOST_INSTANCES)))]
        self._bank = InstanceBank.fit([instances for _, instances in kept])
        self._occupancy = _find_occupancy([coverage for coverage, _ in kept], self._bank.kinds)

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores: log(1 + s), s being the strength of the most broken relation in distances usual in normal images.
            The map paints each part with the most broken relation it has a part in, and the usual places of a kind of
            which there are too few, all over the image or in a cell of the learned grid. Up to three sentences an
            image, none where no relation is clearly broken. A vector that is not finite makes the score NaN.

        Raises:
            BundleError: The vectors do not have the length of the fit.
            FitError: The expert is not fitted.
        """
        bank = self._fitted()
        side = self._config.map_size
        scores = np.zeros(len(perception), dtype=np.float32)
        maps = np.zeros((len(perception), side, side), dtype=np.float32)
        reasons: list[list[str]] = [[] for _ in range(len(perception))]
        for row in range(len(perception)):
            segments, vectors = self._compared(perception, row)
            dimensions = [each.shape[1] for each in vectors]
            if dimensions != bank.dimensions:
                raise BundleError(
                    f"{self.name}: fitted on vectors of length {bank.dimensions} but the image has {dimensions}; "
                    "score with the networks of the bundle, or fit again"
                )
            if not all(np.isfinite(each).all() for each in vectors):
                scores[row] = np.nan
                continue
            instances = describe_instances(segments, vectors, perception.images[row], self._config.left_out)
            deviations = bank.deviations(instances)
            scores[row] = np.log1p(max((one.strengths.max() for one in deviations), default=0.0))
            maps[row] = self._painted(segments, deviations, bank.grid)
            reasons[row] = relation_reasons(deviations, instances, bank.grid)
        return Evidence(scores, anomaly_maps(maps, side, self._config.smoothing), reasons)

    def state(self) -> State:
        """The bank, and where each kind stands: occupancy, float32, shape (kinds, map, map).

        Raises:
            FitError: The expert is not fitted.
        """
        bank = self._fitted()
        side = self._config.map_size
        occupancy = np.array([self._occupancy[kind] for kind in bank.kinds], dtype=np.float32)
        return State({**bank.arrays(), "occupancy": occupancy.reshape(-1, side, side)}, bank.document())

    @classmethod
    def from_state(cls, name: str, config: RelationsConfig, state: State) -> Self:
        """Restores a fitted expert; it gives exactly the scores of the one that was saved.

        Raises:
            BundleError: The state holds no relations of this configuration.
        """
        expert = cls(name, config)
        bank = InstanceBank.restored(state.arrays, state.document, len(config.vectors))
        occupancy = state.arrays.get("occupancy")
        if occupancy is None or occupancy.shape != (len(bank.kinds), config.map_size, config.map_size):
            raise BundleError(f"{name}: the bundle holds no relations of this configuration; fit the category again")
        expert._bank = bank
        expert._occupancy = dict(zip(bank.kinds, occupancy, strict=True))
        return expert

    def _fitted(self) -> InstanceBank:
        if self._bank is None:
            raise FitError(f"{self.name}: the relations are not fitted; fit them or load a bundle first")
        return self._bank

    def _compared(self, perception: Perception, row: int) -> tuple[Segments, list[np.ndarray]]:
        """The segments of one image of the batch, the largest first, and their vectors."""
        segments = perception.segments[self._config.segments][row]
        largest = np.arange(min(len(segments), _MOST_INSTANCES_OF_AN_IMAGE))
        return segments.select(largest), [perception.vectors[name][row][largest] for name in self._config.vectors]

    def _painted(self, segments: Segments, deviations: Sequence[Deviation], grid: PartGrid) -> np.ndarray:
        """The map of one image before it is smoothed: float32, shape (map_size, map_size)."""
        side = self._config.map_size
        of_instances = np.zeros(len(segments))
        painted = np.zeros((side, side))
        cells = grid.cells(side, side)
        for one in deviations:
            relation, members = one.measurement.relation, one.measurement.members
            np.maximum.at(of_instances, members, one.strengths[:, None])
            if relation.attribute in ("count", "cell_count") and one.measurement.values[0, 0] < one.nearest[0, 0]:
                where = (cells == relation.cell) | (relation.attribute == "count")
                painted = np.maximum(painted, where * self._occupancy[relation.kind] * one.strengths[0])
        for mask, strength in zip(segments.masks(), of_instances, strict=True):
            painted = np.maximum(painted, evenly_spaced(mask, side, side) * strength)
        return np.asarray(np.log1p(painted), dtype=np.float32)


def _find_occupancy(images: Sequence[Mapping[str, np.ndarray]], kinds: Sequence[str]) -> dict[str, np.ndarray]:
    """How often each kind covers a place, of its most frequent place: float32, shape (map, map), by kind."""
    found = {}
    for kind in kinds:
        often = sum(coverage[kind] for coverage in images if kind in coverage)
        found[kind] = np.asarray(often / np.max(often), dtype=np.float32)
    return found
