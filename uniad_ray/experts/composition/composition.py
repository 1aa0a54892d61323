"""The composition expert: amounts, regions and spread of the colours of an image, against those of normal images.

It needs no parts. It follows the components of UniAD (section 3.4), but compares colours at several numbers of
clusters, by the covariance of their measurements. So it learns what varies together, such as a ratio in a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self, TypeAlias

import numpy as np
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.composition.features import ABSENT, FEATURES, SMALLEST_CHANGES, label_features
from uniad_ray.experts.composition.label_statistics import LabelStatistics
from uniad_ray.experts.composition.normal_spread import Changes, NormalSpread
from uniad_ray.experts.composition.reasons import composition_reasons
from uniad_ray.experts.shared.field_checks import FieldShapes
from uniad_ray.experts.shared.painted_labels import paint_labels
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.sampling.image_sample import ImageSample

_UNUSUAL: Final = 2.0
"""Score above which the composition is worth a sentence."""

MeasuredImages: TypeAlias = Mapping[str, Sequence[np.ndarray]]
"""Features of each label map, by row key in ascending order: float64, shape (K, F), K the labels of the image."""


class CompositionConfig(StrictModel):
    """Options of the composition expert.

    Attributes:
        labels: Field with the label maps.
        images: Maximum number of normal images to learn from, sampled evenly.
        map_size: Side of the evidence map.
        seed: Seed of the sample.
    """

    labels: str = "colours/labels"
    images: int = Field(default=10_000, ge=2, le=1_000_000)
    map_size: int = Field(default=64, ge=1, le=2048)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class Composition:
    """Distance of the composition of an image from that of normal images; each image is processed alone."""

    config_model: ClassVar[type[CompositionConfig]] = CompositionConfig

    def __init__(self, name: str, config: CompositionConfig) -> None:
        """Creates an unfitted expert."""
        self.name = name
        self.needs = frozenset({config.labels})
        self._config = config
        self._shapes = FieldShapes(name, [config.labels])
        self._statistics: tuple[LabelStatistics, ...] = ()
        self._spreads: tuple[NormalSpread, ...] = ()

    def fit(self, stream: PerceptionStream) -> None:
        """Learns from normal images in one pass; order and batching of the images have no effect.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: There are fewer than two images, or the shape of a field changes.
        """
        self._learn(*self._read(stream))

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the label maps.

        Returns:
            Scores: the distance in standard deviations of normal images that were left out of the fit, mean over the
            label maps. The map paints each label's part of the distance on its region, or on its usual place if there
            is less of it than usual. Up to three sentences per image, none for a usual distance.

        Raises:
            BundleError: The label maps do not have the shape of the fit.
            FitError: The expert is not fitted.
        """
        if not self._spreads:
            raise FitError(f"{self.name}: the composition is not fitted; fit it or load a bundle first")
        self._shapes.check(perception)
        side = self._config.map_size
        scores = np.zeros(len(perception), dtype=np.float32)
        painted = np.zeros((len(perception), side, side), dtype=np.float32)
        reasons: list[list[str]] = []
        for row in range(len(perception)):
            deviations, measured = [], []
            for labels, one, spread in zip(
                self._label_maps(perception, row), self._statistics, self._spreads, strict=True
            ):
                # A label that no normal image has counts as the last one.
                features = label_features(np.minimum(labels, one.labels - 1), one.labels)
                terms = spread.terms(features.ravel())
                deviations.append(spread.deviation(terms))
                measured.append(features)
                share = np.maximum(terms.reshape(one.labels, -1).sum(axis=1), 0.0)
                strength = max(deviations[-1], 0.0) * share / max(float(share.max()), 1e-12)
                on_map = np.minimum(evenly_spaced(labels, side, side), one.labels - 1)
                painted[row] += paint_labels(on_map, features[:, 0], strength, one.occupancy)
            scores[row] = np.mean(deviations)
            is_unusual = scores[row] > _UNUSUAL
            reasons.append(composition_reasons(measured, self._statistics, self._spreads) if is_unusual else [])
        return Evidence(scores, painted / len(self._spreads), reasons)

    def state(self) -> State:
        """Spread, places and colours of the labels of each map.

        Raises:
            FitError: The expert is not fitted.
        """
        if not self._spreads:
            raise FitError(f"{self.name}: the composition is not fitted; fit it or load a bundle first")
        arrays = {
            f"{number}/{key}": array
            for number, (one, spread) in enumerate(zip(self._statistics, self._spreads, strict=True))
            for key, array in {**one.arrays(), **spread.arrays()}.items()
        }
        return State(arrays, {"maps": len(self._spreads), "shapes": self._shapes.document()})

    @classmethod
    def from_state(cls, name: str, config: CompositionConfig, state: State) -> Self:
        """Restores a fitted expert; its scores are exactly those of the saved one.

        Raises:
            BundleError: The state has no composition of this configuration.
        """
        shapes, maps = state.document.get("shapes"), state.document.get("maps")
        if not isinstance(shapes, dict) or not isinstance(maps, int) or maps < 1:
            raise BundleError(f"{name}: the bundle has no composition of this configuration; fit the category again")
        expert = cls(name, config)
        expert._shapes = FieldShapes.from_document(name, shapes)
        for number in range(maps):
            arrays = {
                key.removeprefix(f"{number}/"): array
                for key, array in state.arrays.items()
                if key.startswith(f"{number}/")
            }
            statistics = LabelStatistics.from_arrays(arrays, config.map_size)
            expert._statistics += (statistics,)
            expert._spreads += (NormalSpread.from_arrays(arrays, statistics.labels * len(FEATURES)),)
        return expert

    def _read(self, stream: PerceptionStream) -> tuple[FieldShapes, tuple[LabelStatistics, ...], MeasuredImages]:
        """Reads the normal images: shapes, statistics of each map, and features of each map by row key."""
        shapes = FieldShapes(self.name, [self._config.labels])
        sample: ImageSample[list[np.ndarray]] = ImageSample(self._config.images, self._config.seed)
        statistics: list[LabelStatistics] = []
        for perception in stream():
            shapes.observe(perception)
            for row, row_key in enumerate(perception.row_keys):
                maps = self._label_maps(perception, row)
                statistics = statistics or [LabelStatistics(self._config.map_size) for _ in maps]
                for one, labels in zip(statistics, maps, strict=True):
                    one.add(labels, perception.images[row])
                if sample.wants(row_key):
                    sample.add(row_key, [label_features(labels, int(labels.max()) + 1) for labels in maps])
        images = sample.items()
        if len(images) < 2:
            raise FitError(f"{self.name}: at least 2 normal images are needed, not {len(images)}; add images")
        return shapes, tuple(statistics), images

    def _learn(
        self,
        shapes: FieldShapes,
        statistics: tuple[LabelStatistics, ...],
        images: MeasuredImages,
        changes: Sequence[Changes] | None = None,
    ) -> None:
        """Fits the spread of each map; `changes` are those that anomalies make to the features of each map."""
        self._shapes = shapes
        self._statistics = statistics
        self._spreads = tuple(
            NormalSpread.fit(
                np.stack([padded(features[number], one.labels).ravel() for features in images.values()]),
                np.tile(SMALLEST_CHANGES, one.labels),
                None if changes is None else changes[number],
            )
            for number, one in enumerate(statistics)
        )

    def _label_maps(self, perception: Perception, row: int) -> np.ndarray:
        return np.asarray(perception.fields[self._config.labels][row].cpu().numpy())


def padded(features: np.ndarray, labels: int) -> np.ndarray:
    """The features of all labels, also of those after the last one that the image has: float64, shape (labels, F)."""
    return np.concatenate([features, np.tile(ABSENT, (labels - len(features), 1))])
