"""The discrepancy of teacher and student: a student trained on normal images cannot follow on anomalies.

The method is STPM (Wang et al. 2021, eq. 1-4), the base of UniAD's structural branch; `squared` is EfficientAD's
distance.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field, model_validator

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.shared.anomaly_map import anomaly_maps
from uniad_ray.experts.shared.field_checks import FieldShapes, require_finite
from uniad_ray.experts.shared.grid_evidence import GridEvidenceConfig, grid_evidence
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.sampling.image_sample import ImageSample

FeatureDistance = Literal["cosine", "squared"]
Normalisation = Literal["none", "level", "cell"]

_LEAST_DEVIATION = 1e-6


class DiscrepancyConfig(GridEvidenceConfig):
    """Options of the discrepancy.

    Attributes:
        teacher: The teacher's fields.
        student: The student's fields, paired with the teacher's in the same order.
        distance: `cosine`, 1 - cosine similarity in 0..2; or `squared`, the mean squared difference over channels.
        normalisation: `none` uses the distances unchanged. `level` subtracts the mean and divides by the standard
            deviation of a level over all cells of the normal images. `cell` does so for each cell.
        combination: How the levels are combined at the size of the map: their `product` (STPM, eq. 4; only for
            distances without normalisation) or their `mean`.
        max_images: Maximum number of normal images for mean and deviation, sampled evenly. Each takes 4 bytes per cell;
            sampling needs up to twice the memory.
        seed: Seed of the sample.
    """

    teacher: tuple[str, ...] = Field(default=("pyramid/level1", "pyramid/level2", "pyramid/level3"), min_length=1)
    student: tuple[str, ...] = Field(default=("student/level1", "student/level2", "student/level3"), min_length=1)
    distance: FeatureDistance = "cosine"
    normalisation: Normalisation = "none"
    combination: Literal["product", "mean"] = "mean"
    max_images: int = Field(default=1000, ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.teacher) != len(self.student):
            raise ValueError("teacher and student must name the same number of fields")
        if self.combination == "product" and self.normalisation != "none":
            raise ValueError("combination product needs normalisation none: normalised distances may be negative")
        return self


def feature_distance(teacher: torch.Tensor, student: torch.Tensor, distance: FeatureDistance) -> torch.Tensor:
    """Distance between two fields, cell by cell.

    Args:
        teacher: float32, shape (N, C, h, w).
        student: The same shape.
        distance: `cosine`: half the squared distance of the vectors scaled to unit length, which is 1 - their cosine
            (STPM, eq. 1). `squared`: the mean squared difference over channels (EfficientAD, section 3.2).

    Returns:
        float32, shape (N, h, w), >= 0.
    """
    if distance == "cosine":
        return 0.5 * (F.normalize(teacher, dim=1) - F.normalize(student, dim=1)).square().sum(dim=1)
    return (teacher - student).square().mean(dim=1)


class Discrepancy:
    """Distance between the features of student and teacher, level by level.

    Each image is processed alone in fit and scoring: results do not depend on the batches.
    """

    config_model: ClassVar[type[DiscrepancyConfig]] = DiscrepancyConfig

    def __init__(self, name: str, config: DiscrepancyConfig) -> None:
        """Creates an unfitted expert."""
        self.name = name
        self.needs = frozenset(config.teacher) | frozenset(config.student)
        self._config = config
        self._shapes = FieldShapes(name, self.needs)
        self._statistics: dict[str, np.ndarray] = {}

    def fit(self, stream: PerceptionStream) -> None:
        """Learns the normal distances in one pass; the order of the images has no effect.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: There are no images, a feature is not finite, the shape of a field changes, or teacher and student
                have different shapes.
        """
        sample: ImageSample[np.ndarray] = ImageSample(self._config.max_images, self._config.seed)
        shapes = FieldShapes(self.name, self.needs)
        for perception in stream():
            shapes.observe(perception)
            self._check_pairs(shapes)
            for row, row_key in enumerate(perception.row_keys):
                distances = torch.cat([level.flatten() for level in self._distances(perception, row)])
                require_finite(self.name, row_key, distances)
                sample.add(row_key, distances.cpu().numpy())
        images = list(sample.items().values())
        if not images:
            raise FitError(f"{self.name}: there are no normal images to fit on; add some to the category")
        sizes = [shapes[name][1] * shapes[name][2] for name in self._config.teacher]
        levels = np.split(np.stack(images), np.cumsum(sizes)[:-1], axis=1)
        self._statistics = {}
        for name, level in zip(self._config.teacher, levels, strict=True):
            mean, deviation = _statistics(level.reshape(len(level), *shapes[name][1:]), self._config.normalisation)
            self._statistics |= {f"mean/{name}": mean, f"deviation/{name}": deviation}
        self._shapes = shapes

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores and maps in units of the distance, or in standard deviations of normal images; and one sentence per
            image with the position of the map's maximum. A feature that is not finite makes the image's score NaN.

        Raises:
            BundleError: The fields do not have the shapes of the fit.
            FitError: The expert is not fitted.
        """
        statistics = self._fitted()
        self._shapes.check(perception)
        side = self._config.map_size
        grids = np.empty((len(perception), side, side), dtype=np.float32)
        for row in range(len(perception)):
            levels = [
                (level.cpu().numpy() - statistics[f"mean/{name}"]) / statistics[f"deviation/{name}"]
                for name, level in zip(self._config.teacher, self._distances(perception, row), strict=True)
            ]
            maps = np.concatenate([anomaly_maps(level[None], side, 0.0) for level in levels])
            grids[row] = maps.prod(axis=0) if self._config.combination == "product" else maps.mean(axis=0)
        return grid_evidence(self.name, grids, self._config)

    def state(self) -> State:
        """`mean/<field>` and `deviation/<field>` of every level, shape (h, w) or (1, 1), and the shapes of the fields.

        Raises:
            FitError: The expert is not fitted.
        """
        return State(arrays=self._fitted(), document={"shapes": self._shapes.document()})

    @classmethod
    def from_state(cls, name: str, config: DiscrepancyConfig, state: State) -> Self:
        """Restores a fitted expert; its scores are exactly those of the saved one.

        Raises:
            BundleError: The state lacks mean or deviation of a level, or the shapes of the fields.
        """
        expected = {f"{statistic}/{field}" for statistic in ("mean", "deviation") for field in config.teacher}
        shapes = state.document.get("shapes")
        if set(state.arrays) != expected or not isinstance(shapes, dict):
            raise BundleError(f"{name}: the bundle has no discrepancies of normal images; fit the category again")
        expert = cls(name, config)
        expert._statistics = dict(state.arrays)
        expert._shapes = FieldShapes.from_document(name, shapes)
        return expert

    def _fitted(self) -> dict[str, np.ndarray]:
        if not self._statistics:
            raise FitError(f"{self.name}: the discrepancy is not fitted; fit it or load a bundle first")
        return self._statistics

    def _distances(self, perception: Perception, row: int) -> list[torch.Tensor]:
        """Distances of one image of the batch, one float32 grid per level."""
        with torch.inference_mode():
            return [
                feature_distance(
                    perception.fields[teacher][row : row + 1].contiguous(),
                    perception.fields[student][row : row + 1].contiguous(),
                    self._config.distance,
                )[0]
                for teacher, student in zip(self._config.teacher, self._config.student, strict=True)
            ]

    def _check_pairs(self, shapes: FieldShapes) -> None:
        for teacher, student in zip(self._config.teacher, self._config.student, strict=True):
            if shapes[teacher] != shapes[student]:
                raise FitError(
                    f"{self.name}: {student} has shape {shapes[student]} but {teacher} {shapes[teacher]}; "
                    "pair each student field with the teacher field it follows"
                )


def _statistics(distances: np.ndarray, normalisation: Normalisation) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of distances of shape (M, h, w): float32, shape (h, w) per cell, otherwise (1, 1)."""
    if normalisation == "none":
        return np.zeros((1, 1), dtype=np.float32), np.ones((1, 1), dtype=np.float32)
    axes = 0 if normalisation == "cell" else (0, 1, 2)
    values = distances.astype(np.float64)
    mean = values.mean(axis=axes, keepdims=True)[0]
    deviation = np.maximum(values.std(axis=axes, keepdims=True)[0], _LEAST_DEVIATION)
    return mean.astype(np.float32), deviation.astype(np.float32)
