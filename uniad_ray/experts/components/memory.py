"""The component memory: deviation of component sizes, colours and piece counts from normal (UniAD, section 3.4)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.components.bank import ComponentBank, Standardise
from uniad_ray.experts.components.features import ComponentFeatureConfig, component_features
from uniad_ray.experts.components.reasons import component_reasons
from uniad_ray.experts.shared.field_checks import FieldShapes
from uniad_ray.experts.shared.painted_labels import paint_labels
from uniad_ray.experts.shared.shrunk_precision import shrunk_precision
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.sampling.image_sample import ImageSample

_FEWEST_IMAGES = 2


class ComponentMemoryConfig(StrictModel):
    """Options of the component memory.

    Attributes:
        components: Name of the extractor whose label maps are used.
        features: Features of a component.
        standardise: Scaling of the features: `plain` or `robust`, see `ComponentBank.fit`.
        distance: `nearest` is the mean L2 distance to the nearest normal images (the paper). `mahalanobis` is the
            distance to their mean under their covariance, with Ledoit-Wolf shrinkage.
        neighbours: Number of normal images to compare with.
        memory_size: Maximum number of normal images in the bank, sampled evenly; scoring time grows with it.
        map_size: Side of the evidence map.
        seed: Seed of the sample.
    """

    components: str = "teacher_components"
    features: ComponentFeatureConfig = ComponentFeatureConfig()
    standardise: Standardise = "plain"
    distance: Literal["nearest", "mahalanobis"] = "mahalanobis"
    neighbours: int = Field(default=5, ge=1, le=100)
    memory_size: int = Field(default=10_000, ge=2, le=1_000_000)
    map_size: int = Field(default=64, ge=1, le=2048)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class ComponentMemory:
    """Distance of an image's component features to those of normal images; each image is processed alone."""

    config_model: ClassVar[type[ComponentMemoryConfig]] = ComponentMemoryConfig

    def __init__(self, name: str, config: ComponentMemoryConfig) -> None:
        """Creates an unfitted expert."""
        self.name = name
        self._labels = f"{config.components}/labels"
        self._similarity = f"{config.components}/similarity"
        self.needs = frozenset({self._labels, self._similarity})
        self._config = config
        self._shapes = FieldShapes(name, sorted(self.needs))
        self._bank: ComponentBank | None = None
        self._occupancy = np.zeros((0, 0, 0), dtype=np.float32)
        self._precision = np.zeros((0, 0))

    def fit(self, stream: PerceptionStream) -> None:
        """Builds the bank in one pass; order and batching of the images have no effect.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: There are fewer than two images, or the shape of a field changes.
        """
        shapes = FieldShapes(self.name, sorted(self.needs))
        sample = ImageSample[np.ndarray](self._config.memory_size, self._config.seed)
        images = 0
        occupied: np.ndarray | None = None
        for perception in stream():
            shapes.observe(perception)
            components = np.arange(shapes[self._similarity][0])
            for row, row_key in enumerate(perception.row_keys):
                labels = self._label_map(perception, row)
                sample.add(
                    row_key,
                    component_features(labels, perception.images[row], len(components), self._config.features),
                )
                images += 1
                here = self._on_map(labels) == components[:, None, None]
                occupied = here.astype(np.int64) if occupied is None else occupied + here
        if occupied is None or images < _FEWEST_IMAGES:
            raise FitError(
                f"{self.name}: there are {images} normal images but at least {_FEWEST_IMAGES} are needed; "
                "add images to the category"
            )
        rows = sample.items()
        bank = ComponentBank.fit(
            list(rows),
            np.stack(list(rows.values())),
            self._config.standardise,
            self._config.features.smallest_changes(len(occupied)),
        )
        self._shapes = shapes
        self._bank = bank
        self._precision = shrunk_precision(bank.standardised(bank.features))
        self._occupancy = (occupied / images).astype(np.float32)

    def nearest_normal_images(self, features: np.ndarray) -> np.ndarray:
        """Row indices of the normal images nearest to component features.

        Args:
            features: float64, shape (N, F).

        Returns:
            int64, shape (N, k), nearest first; k is `neighbours`, or fewer with fewer normal images.

        Raises:
            FitError: The expert is not fitted.
        """
        return self._fitted().nearest(features, self._config.neighbours)[1]

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores in standard deviations of normal images. The map paints the contribution of each component to the
            distance on its region; a missing component is painted at its usual place in normal images. The largest
            contribution is scaled to the score. Up to three sentences per image, none for a normal one. A distance that
            is not finite makes the score NaN.

        Raises:
            BundleError: The fields do not have the shapes of the fit.
            FitError: The expert is not fitted.
        """
        bank = self._fitted()
        self._shapes.check(perception)
        scores = np.empty(len(perception), dtype=np.float32)
        maps = np.empty((len(perception), self._config.map_size, self._config.map_size), dtype=np.float32)
        reasons = []
        for row in range(len(perception)):
            labels = self._label_map(perception, row)
            features = component_features(labels, perception.images[row], len(self._occupancy), self._config.features)
            nearest = self.nearest_normal_images(features[None])[0]
            share = self._share_of_distance(features, nearest)
            finite = bool(torch.isfinite(perception.fields[self._similarity][row]).all())
            scores[row] = share.sum() if finite else np.nan
            maps[row] = self._painted(labels, share)
            expected = bank.features[nearest].mean(axis=0)
            reasons.append(component_reasons(self.name, self._config.features.features, features, expected, bank.scale))
        return Evidence(scores=scores, maps=maps, reasons=reasons)

    def state(self) -> State:
        """The bank, the precision matrix and the occupancy of components: float32, shape (K, map, map).

        Raises:
            FitError: The expert is not fitted.
        """
        bank = self._fitted()
        return State(
            arrays={**bank.arrays(), "precision": self._precision, "occupancy": self._occupancy},
            document={"row_keys": list(bank.row_keys), "shapes": self._shapes.document()},
        )

    @classmethod
    def from_state(cls, name: str, config: ComponentMemoryConfig, state: State) -> Self:
        """Restores a fitted expert; its scores are exactly those of the saved one.

        Raises:
            BundleError: The state has no bank that fits the configuration.
        """
        shapes = state.document.get("shapes")
        precision, occupancy = (state.arrays.get(key) for key in ("precision", "occupancy"))
        bank = ComponentBank.from_arrays(state.document.get("row_keys", ()), state.arrays)
        expert = cls(name, config)
        features = bank.features.shape[1]
        if (
            precision is None
            or occupancy is None
            or not isinstance(shapes, dict)
            or precision.shape != (features, features)
            or occupancy.shape[1:] != (config.map_size, config.map_size)
            or len(occupancy) * len(config.features.features) != features
        ):
            raise BundleError(f"{name}: the bundle has no component memory of this configuration; fit again")
        expert._bank = bank
        expert._precision = precision
        expert._occupancy = occupancy
        expert._shapes = FieldShapes.from_document(name, shapes)
        return expert

    def _fitted(self) -> ComponentBank:
        if self._bank is None:
            raise FitError(f"{self.name}: the component memory is not fitted; fit it or load a bundle first")
        return self._bank

    def _label_map(self, perception: Perception, row: int) -> np.ndarray:
        return np.asarray(perception.fields[self._labels][row, 0].cpu().numpy())

    def _on_map(self, labels: np.ndarray) -> np.ndarray:
        return evenly_spaced(labels, self._config.map_size, self._config.map_size)

    def _share_of_distance(self, features: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Contribution of each component to the distance, which is their sum: float64, shape (K,)."""
        bank = self._fitted()
        query = bank.standardised(features)
        if self._config.distance == "mahalanobis":
            terms = (query * (self._precision @ query))[None]
        else:
            terms = np.square(query - bank.standardised(bank.features[nearest]))
        distances = np.sqrt(np.maximum(terms.sum(axis=1, keepdims=True), 0.0))
        shares = np.divide(terms, distances, out=np.zeros_like(terms), where=distances > 0.0)
        return np.asarray(shares.mean(axis=0).reshape(len(self._occupancy), -1).sum(axis=1))

    def _painted(self, labels: np.ndarray, share: np.ndarray) -> np.ndarray:
        """The evidence map of one image: float32, shape (map_size, map_size)."""
        if share.max() <= 0.0:
            return np.zeros((self._config.map_size, self._config.map_size), dtype=np.float32)
        strength = np.maximum(share, 0.0) * (share.sum() / share.max())
        areas = np.bincount(labels.ravel(), minlength=len(share)) / labels.size
        return paint_labels(self._on_map(labels), areas, strength, self._occupancy)
