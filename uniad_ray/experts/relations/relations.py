"""The relations expert: number, position and combination of parts.

It goes beyond UniAD: TMUAD (section V-A) explains its failures by missing relations between parts. Parts are named
segments. Their relations are learned from normal images alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

import numpy as np
import torch
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.relations.bank import Deviation
from uniad_ray.experts.relations.instance_bank import InstanceBank
from uniad_ray.experts.relations.instances import Instances, describe_instances
from uniad_ray.experts.relations.part_grid import PartGrid
from uniad_ray.experts.relations.reasons import relation_reasons
from uniad_ray.experts.shared.anomaly_map import anomaly_maps
from uniad_ray.experts.shared.class_coverage import class_coverage
from uniad_ray.experts.shared.field_checks import require_finite
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.sampling.image_sample import ImageSample
from uniad_ray.perception.segments import Segments

_MOST_INSTANCES: Final = 2000
# The number of pairs grows with its square.
_MOST_INSTANCES_OF_AN_IMAGE: Final = 64


class RelationsConfig(StrictModel):
    """Options of the relations expert.

    Attributes:
        segments: Field with named segments; of more than 64 in an image, the largest are compared, all are counted.
        vectors: Fields with vectors of the segments that describe their appearance.
        left_out: Names that are not kinds of parts; only the appearance of their segments is compared.
        images: Maximum number of normal images to keep, sampled evenly.
        map_size: Side of the evidence map.
        smoothing: Standard deviation of the map's Gaussian, map pixels; 0 disables smoothing.
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
    """Deviation of the relations between the parts of an image from those in normal images."""

    config_model: ClassVar[type[RelationsConfig]] = RelationsConfig

    def __init__(self, name: str, config: RelationsConfig) -> None:
        """Creates an unfitted expert."""
        self.name = name
        self._config = config
        self.needs = frozenset({config.segments, *config.vectors})
        self._occupancy: dict[str, np.ndarray] = {}
        self._bank: InstanceBank | None = None

    def fit(self, stream: PerceptionStream) -> None:
        """Stores the instances and the usual places of each kind; the order of the images has no effect.

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
                segments, vectors = self._inputs(perception, row)
                if len(segments.names) < len(segments):
                    raise FitError(
                        f"{self.name}: {self._config.segments} has segments without names; use the field of a namer"
                    )
                for each in vectors:
                    require_finite(self.name, row_key, torch.from_numpy(each))
                if sample.wants(row_key):
                    coverage = class_coverage(segments, self._config.map_size)
                    instances = self._described(segments, vectors, perception.images[row])
                    sample.add(row_key, (coverage, instances))
        images = sample.by_priority()
        if len(images) < 2:
            raise FitError(f"{self.name}: at least 2 normal images are needed, not {len(images)}; add images")
        numbers = np.cumsum([len(instances) for _, instances in images])
        kept = images[: max(2, int(np.count_nonzero(numbers <= _MOST_INSTANCES)))]
        self._bank = InstanceBank.fit([instances for _, instances in kept])
        self._occupancy = _find_occupancy([coverage for coverage, _ in kept], self._bank.kinds)

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores: log(1 + s), where s is the strength of the most broken relation in units of the usual distance in
            normal images. The map paints each part with the strongest broken relation it belongs to. If there are too
            few of a kind, in the image or in a cell of the learned grid, it paints their usual places. Up to three
            sentences per image, none if no relation is clearly broken. A vector that is not finite makes the score NaN.

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
            segments, vectors = self._inputs(perception, row)
            dimensions = [each.shape[1] for each in vectors]
            if dimensions != bank.dimensions:
                raise BundleError(
                    f"{self.name}: fitted on vectors of length {bank.dimensions} but the image has {dimensions}; "
                    "score with the networks of the bundle, or fit again"
                )
            if not all(np.isfinite(each).all() for each in vectors):
                scores[row] = np.nan
                continue
            instances = self._described(segments, vectors, perception.images[row])
            deviations = bank.deviations(instances)
            scores[row] = np.log1p(max((one.strengths.max() for one in deviations), default=0.0))
            maps[row] = self._painted(segments, deviations, bank.grid)
            reasons[row] = relation_reasons(deviations, instances, bank.grid)
        return Evidence(scores, anomaly_maps(maps, side, self._config.smoothing), reasons)

    def state(self) -> State:
        """The bank, and the occupancy of each kind: float32, shape (kinds, map, map).

        Raises:
            FitError: The expert is not fitted.
        """
        bank = self._fitted()
        side = self._config.map_size
        occupancy = np.array([self._occupancy[kind] for kind in bank.kinds], dtype=np.float32)
        return State({**bank.arrays(), "occupancy": occupancy.reshape(-1, side, side)}, bank.document())

    @classmethod
    def from_state(cls, name: str, config: RelationsConfig, state: State) -> Self:
        """Restores a fitted expert; its scores are exactly those of the saved one.

        Raises:
            BundleError: The state has no relations of this configuration.
        """
        expert = cls(name, config)
        bank = InstanceBank.restored(state.arrays, state.document, len(config.vectors))
        occupancy = state.arrays.get("occupancy")
        if occupancy is None or occupancy.shape != (len(bank.kinds), config.map_size, config.map_size):
            raise BundleError(f"{name}: the bundle has no relations of this configuration; fit the category again")
        expert._bank = bank
        expert._occupancy = dict(zip(bank.kinds, occupancy, strict=True))
        return expert

    def _fitted(self) -> InstanceBank:
        if self._bank is None:
            raise FitError(f"{self.name}: the relations are not fitted; fit them or load a bundle first")
        return self._bank

    def _inputs(self, perception: Perception, row: int) -> tuple[Segments, list[np.ndarray]]:
        """The segments of one image of the batch, largest first, and their vectors."""
        segments = perception.segments[self._config.segments][row]
        return segments, [np.asarray(perception.vectors[name][row]) for name in self._config.vectors]

    def _described(self, segments: Segments, vectors: Sequence[np.ndarray], image: np.ndarray) -> Instances:
        return describe_instances(segments, vectors, image, self._config.left_out, _MOST_INSTANCES_OF_AN_IMAGE)

    def _painted(self, segments: Segments, deviations: Sequence[Deviation], grid: PartGrid) -> np.ndarray:
        """The map of one image before smoothing: float32, shape (map_size, map_size)."""
        side = self._config.map_size
        segments = segments.select(np.arange(min(len(segments), _MOST_INSTANCES_OF_AN_IMAGE)))
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
    """Frequency of each kind at a place, relative to its most frequent place: float32, shape (map, map), by kind."""
    found = {}
    for kind in kinds:
        often = sum(coverage[kind] for coverage in images if kind in coverage)
        found[kind] = np.asarray(often / np.max(often), dtype=np.float32)
    return found
