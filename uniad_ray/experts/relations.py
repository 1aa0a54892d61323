"""The relations expert: how many parts there are, where they stand, and what goes with what.

Beyond UniAD: TMUAD (section V-A) names the lack of relations between parts as the reason for its failures. Parts are
the pieces of the foreground of a label map; which labels are foreground, what kinds of parts there are and which of
their relations hold is learned from normal images alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar, Final, Self

import numpy as np
import torch
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.anomaly_map import anomaly_maps
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.field_checks import FieldShapes, require_finite
from uniad_ray.experts.instance_bank import InstanceBank
from uniad_ray.experts.instances import Instances, describe_instances
from uniad_ray.experts.part_grid import PartGrid
from uniad_ray.experts.relation_bank import Deviation
from uniad_ray.experts.relation_reasons import relation_reasons
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.image_sample import ImageSample
from uniad_ray.perception.object_kinds import NO_KIND
from uniad_ray.perception.regions import find_regions
from uniad_ray.perception.regularity import count_regularity

_SIDE: Final = 128
_SIDE_FOR_COUNTING: Final = 64
_MOST_INSTANCES: Final = 2000
_MOST_LABEL_SETS: Final = 300


class RelationsConfig(StrictModel):
    """Options of the relations expert.

    Attributes:
        components: Name of the components perceiver whose labels are taken.
        fields: Feature fields that say what an instance looks like.
        joined_labels: The foreground is a set of up to so many labels, or fewer where such sets are more than 300.
        smallest_area: Least area of an instance, as a share of the image.
        largest_area: Most area of one.
        images: The most normal images that are remembered, sampled evenly.
        map_size: Side of the evidence map.
        smoothing: Deviation of the map's Gaussian in map pixels; 0 switches it off.
        seed: Seed of the sample.
    """

    components: str
    fields: tuple[str, ...] = Field(default=("pyramid/level2", "pyramid/level3"), min_length=1, max_length=3)
    joined_labels: int = Field(default=3, ge=1, le=8)
    smallest_area: float = Field(default=0.003, gt=0.0, lt=1.0)
    largest_area: float = Field(default=0.25, gt=0.0, le=1.0)
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
        self._labels = f"{config.components}/labels"
        self._similarity = f"{config.components}/similarity"
        self.needs = frozenset({self._labels, self._similarity, *config.fields})
        self._shapes = FieldShapes(name, self.needs)
        self._foreground: tuple[int, ...] = ()
        self._occupancy = np.zeros((0, config.map_size, config.map_size), dtype=np.float32)
        self._bank: InstanceBank | None = None

    def fit(self, stream: PerceptionStream) -> None:
        """Finds the foreground in one pass and the instances in another; the order of the images does not matter.

        The foreground is that set of labels whose pieces are the most regular in number.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: There are fewer than two images, a feature is not finite, or the shape of a field changes.
        """
        self._shapes, self._foreground = self._find_foreground(stream)
        sample: ImageSample[tuple[np.ndarray, Instances]] = ImageSample(self._config.images, self._config.seed)
        for perception in stream():
            for row, row_key in enumerate(perception.row_keys):
                if sample.wants(row_key):
                    sample.add(row_key, self._instances(perception, row))
        numbers = np.cumsum([len(instances) for _, instances in sample.by_priority()])
        kept = sample.by_priority()[: max(2, int(np.count_nonzero(numbers <= _MOST_INSTANCES)))]
        self._bank = InstanceBank.fit([instances for _, instances in kept])
        self._occupancy = self._find_occupancy([regions for regions, _ in kept], self._bank)

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores: log(1 + s), s being the strength of the most broken relation in distances usual in normal images.
            The map paints each part with the most broken relation it has a part in, and the usual places of a kind of
            which there are too few, all over the image or in a cell of the learned grid. Up to three sentences an
            image, none where no relation is clearly broken. A feature that is not finite makes the score NaN.

        Raises:
            BundleError: The fields do not have the shapes of the fit.
            FitError: The expert is not fitted.
        """
        bank = self._fitted()
        self._shapes.check(perception)
        side = self._config.map_size
        scores = np.zeros(len(perception), dtype=np.float32)
        maps = np.zeros((len(perception), side, side), dtype=np.float32)
        reasons: list[list[str]] = [[] for _ in range(len(perception))]
        for row in range(len(perception)):
            if not all(bool(torch.isfinite(perception.fields[name][row]).all()) for name in self._config.fields):
                scores[row] = np.nan
                continue
            regions, instances = self._instances(perception, row)
            deviations = bank.deviations(instances)
            scores[row] = np.log1p(max((one.strengths.max() for one in deviations), default=0.0))
            maps[row] = self._painted(regions, deviations, bank.grid)
            reasons[row] = relation_reasons(deviations, instances, bank.grid)
        return Evidence(scores, anomaly_maps(maps, side, self._config.smoothing), reasons)

    def state(self) -> State:
        """The bank, the foreground labels, and where each kind stands: occupancy, float32, shape (kinds, map, map).

        Raises:
            FitError: The expert is not fitted.
        """
        bank = self._fitted()
        return State(
            arrays={**bank.arrays(), "occupancy": self._occupancy},
            document={
                **bank.document(),
                "foreground": list(self._foreground),
                "shapes": self._shapes.document(),
            },
        )

    @classmethod
    def from_state(cls, name: str, config: RelationsConfig, state: State) -> Self:
        """Restores a fitted expert; it gives exactly the scores of the one that was saved.

        Raises:
            BundleError: The state holds no relations of this configuration.
        """
        expert = cls(name, config)
        bank = InstanceBank.restored(state.arrays, state.document, len(config.fields))
        occupancy = state.arrays.get("occupancy")
        foreground, shapes = state.document.get("foreground"), state.document.get("shapes")
        if (
            occupancy is None
            or occupancy.shape != (bank.kind_count, config.map_size, config.map_size)
            or not foreground
            or not isinstance(shapes, dict)
        ):
            raise BundleError(f"{name}: the bundle holds no relations of this configuration; fit the category again")
        expert._bank = bank
        expert._occupancy = occupancy
        expert._foreground = tuple(foreground)
        expert._shapes = FieldShapes.from_document(name, shapes)
        return expert

    def _fitted(self) -> InstanceBank:
        if self._bank is None:
            raise FitError(f"{self.name}: the relations are not fitted; fit them or load a bundle first")
        return self._bank

    def _find_foreground(self, stream: PerceptionStream) -> tuple[FieldShapes, tuple[int, ...]]:
        shapes = FieldShapes(self.name, self.needs)
        sample: ImageSample[list[int]] = ImageSample(self._config.images, self._config.seed)
        candidates: list[tuple[int, ...]] = []
        for perception in stream():
            shapes.observe(perception)
            candidates = candidates or _label_sets(shapes[self._similarity][0], self._config.joined_labels)
            for row, row_key in enumerate(perception.row_keys):
                for field in self._config.fields:
                    require_finite(self.name, row_key, perception.fields[field][row])
                if sample.wants(row_key):
                    masks = (self._mask(perception, row, one, _SIDE_FOR_COUNTING) for one in candidates)
                    sample.add(row_key, [int(self._regions(mask).max()) for mask in masks])
        counts = np.array(sample.by_priority())
        if len(counts) < 2:
            raise FitError(f"{self.name}: at least 2 normal images are needed, not {len(counts)}; add some")
        regularity = [count_regularity(column) for column in counts.T]
        return shapes, candidates[int(np.argmax(regularity))]

    def _mask(self, perception: Perception, row: int, foreground: tuple[int, ...], most: int) -> np.ndarray:
        labels = perception.fields[self._labels][row, 0].cpu().numpy()
        sampled = evenly_spaced(labels, *(min(side, most) for side in labels.shape))
        return np.asarray(np.isin(np.arange(256), foreground)[sampled])

    def _regions(self, mask: np.ndarray) -> np.ndarray:
        return find_regions(mask, self._config.smallest_area, self._config.largest_area)

    def _instances(self, perception: Perception, row: int) -> tuple[np.ndarray, Instances]:
        """The instances of one image of the batch, and their regions."""
        mask = self._mask(perception, row, self._foreground, _SIDE)
        regions = self._regions(mask)
        fields = [perception.fields[name][row] for name in self._config.fields]
        return regions, describe_instances(regions, mask, perception.images[row], fields)

    def _find_occupancy(self, images: Sequence[np.ndarray], bank: InstanceBank) -> np.ndarray:
        """How often each kind covers a place, of its most frequent place: float32, shape (kinds, map, map)."""
        side = self._config.map_size
        occupancy = np.zeros((bank.kind_count, side, side), dtype=np.float32)
        first = 0
        for regions in images:
            last = first + int(regions.max())
            kinds = np.concatenate([[NO_KIND], bank.kinds[first:last]])[evenly_spaced(regions, side, side)]
            occupancy += kinds == np.arange(bank.kind_count)[:, None, None]
            first = last
        return np.asarray(occupancy / np.maximum(occupancy.max(axis=(1, 2), keepdims=True), 1.0))

    def _painted(self, regions: np.ndarray, deviations: Sequence[Deviation], grid: PartGrid) -> np.ndarray:
        """The map of one image before it is smoothed: float32, shape (map_size, map_size)."""
        side = self._config.map_size
        of_instances = np.zeros(int(regions.max()) + 1)
        usual_places = np.zeros((side, side))
        cells = grid.cells(side, side)
        for one in deviations:
            relation, members = one.measurement.relation, one.measurement.members
            np.maximum.at(of_instances, members + 1, one.strengths[:, None])
            if relation.attribute in ("count", "cell_count") and one.measurement.values[0, 0] < one.nearest[0, 0]:
                where = (cells == relation.other) | (relation.attribute == "count")
                usual_places = np.maximum(usual_places, where * self._occupancy[relation.kind] * one.strengths[0])
        painted = np.maximum(of_instances[evenly_spaced(regions, side, side)], usual_places)
        return np.asarray(np.log1p(painted), dtype=np.float32)


def _label_sets(labels: int, largest: int) -> list[tuple[int, ...]]:
    """Every set of 1 to `largest` labels that leaves at least one out; only smaller ones where these are too many."""
    sets: list[tuple[int, ...]] = []
    for size in range(1, min(largest, labels - 1) + 1):
        if sets and len(sets) + math.comb(labels, size) > _MOST_LABEL_SETS:
            break
        sets += itertools.combinations(range(labels), size)
    return sets
