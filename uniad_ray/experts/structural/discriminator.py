"""The structural discriminator: normality of each patch, from a network trained against noise (UniAD, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Evidence, Expert
from uniad_ray.experts.shared.field_checks import FieldShapes, require_finite
from uniad_ray.experts.shared.grid_evidence import GridEvidenceConfig, grid_evidence
from uniad_ray.experts.shared.patch_features import as_vectors
from uniad_ray.experts.shared.structural_features import Neighbourhood, structural_features
from uniad_ray.experts.structural.network import DiscriminatorConfig, NormalityFunction, train_discriminator
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.features.network import check_precision
from uniad_ray.perception.grids import largest_grid
from uniad_ray.perception.sampling.candidate_sample import CandidateSample


class StructuralDiscriminatorConfig(GridEvidenceConfig, DiscriminatorConfig):
    """Options of the structural discriminator.

    Attributes:
        fields: Levels to score, shallow to deep.
        training_fields: Levels to train the discriminator on; None uses `fields`.
        neighbourhood: Side p of the pooled window, odd (UniAD, eq. 1).
        channels: Maximum number of channels of a patch vector; more are averaged down.
    """

    fields: tuple[str, ...] = Field(default=("pyramid/level1", "pyramid/level2", "pyramid/level3"), min_length=1)
    training_fields: tuple[str, ...] | None = Field(default=None, min_length=1)
    neighbourhood: Neighbourhood = 3
    channels: int = Field(default=1536, ge=1, le=65_536)


class StructuralDiscriminator:
    """`S_str` of the teacher or the student: the negative normality D of each patch (UniAD, eq. 14).

    The paper trains the discriminator on the student's features and describes no other for the teacher's. Two experts,
    one for the levels of the teacher and one for those of the student, each learn a discriminator. With the student's
    levels as `training_fields` of both, they learn the same one, as in the paper, and a fit trains it once.

    Each image is processed alone in fit and scoring: results do not depend on the batches.
    """

    config_model: ClassVar[type[StructuralDiscriminatorConfig]] = StructuralDiscriminatorConfig

    def __init__(self, name: str, config: StructuralDiscriminatorConfig) -> None:
        """Creates an unfitted expert."""
        self.name = name
        self._config = config
        self._training_fields = config.training_fields or config.fields
        self.needs = frozenset(config.fields) | frozenset(self._training_fields)
        self._shapes = FieldShapes(name, self.needs)
        self._normality: NormalityFunction | None = None

    def fit(self, stream: PerceptionStream) -> None:
        """Collects normal patch vectors in one pass, then trains the discriminator on them.

        On the CPU with one thread, order and batching of the images have no effect.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: There are no images, a feature or the loss is not finite, the shape of a field changes, or scored
                and training levels have different numbers of channels.
        """
        sample = CandidateSample(self._config.max_vectors, self._config.seed)
        shapes = FieldShapes(self.name, self.needs)
        device = torch.device("cpu")
        images = 0
        for perception in stream():
            shapes.observe(perception)
            self._check_channels(shapes)
            images += len(perception)
            for row, row_key in enumerate(perception.row_keys):
                features = self._features(perception, row, self._training_fields)
                require_finite(self.name, row_key, features)
                sample.add(row_key, as_vectors(features))
                device = features.device
        vectors = sample.vectors()
        if not len(vectors):
            raise FitError(f"{self.name}: there are no normal images to fit on; add some to the category")
        check_precision(self.name, self._config.precision, device)
        self._normality = train_discriminator(vectors, self._config, name=self.name, device=device, images=images)
        self._shapes = shapes

    def learns_like(self, other: Expert) -> bool:
        """Whether another discriminator has the same training fields and options of training."""
        return isinstance(other, StructuralDiscriminator) and self._learning() == other._learning()

    def fit_like(self, fitted: Expert, stream: PerceptionStream) -> None:
        """Takes over the discriminator of a fitted expert that it learns like; reads the first batch for its shapes.

        Raises:
            FitError: There are no images, or scored and training levels have different numbers of channels.
        """
        if not isinstance(fitted, StructuralDiscriminator):
            raise TypeError(f"{self.name} cannot learn like {fitted.name}")
        shapes = FieldShapes(self.name, self.needs)
        for perception in stream():
            shapes.observe(perception)
            self._check_channels(shapes)
            break
        self._normality = fitted._fitted()
        self._shapes = shapes

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores and maps in units of -D, and one sentence per image with the position of the map's maximum. A feature
            that is not finite makes the image's score NaN.

        Raises:
            BundleError: The fields do not have the shapes of the fit.
            FitError: The expert is not fitted.
        """
        normality = self._fitted()
        self._shapes.check(perception)
        grid = largest_grid(perception.fields, self._config.fields)
        grids = np.empty((len(perception), *grid), dtype=np.float32)
        with torch.inference_mode():
            for row in range(len(perception)):
                vectors = as_vectors(self._features(perception, row, self._config.fields))
                grids[row] = -normality(vectors).reshape(grid).cpu().numpy()
        return grid_evidence(self.name, grids, self._config)

    def state(self) -> State:
        """The trained discriminator as one affine layer and one output, and the shapes (C, h, w) of the fields.

        Raises:
            FitError: The expert is not fitted.
        """
        return State(arrays=self._fitted().arrays, document={"shapes": self._shapes.document()})

    @classmethod
    def from_state(cls, name: str, config: StructuralDiscriminatorConfig, state: State) -> Self:
        """Restores a fitted expert; its scores are exactly those of the saved one.

        Raises:
            BundleError: The state lacks the discriminator or the shapes of its fields.
        """
        shapes = state.document.get("shapes")
        if set(state.arrays) != NormalityFunction.ARRAYS or not isinstance(shapes, dict):
            raise BundleError(f"{name}: the bundle has no discriminator; fit the category again")
        expert = cls(name, config)
        expert._normality = NormalityFunction(state.arrays)
        expert._shapes = FieldShapes.from_document(name, shapes)
        return expert

    def _learning(self) -> dict[str, Any]:
        """All that decides what is learned; how it is scored does not."""
        scoring = {"fields", "training_fields", *GridEvidenceConfig.model_fields}
        return {"training_fields": self._training_fields, **self._config.model_dump(exclude=scoring)}

    def _fitted(self) -> NormalityFunction:
        if self._normality is None:
            raise FitError(f"{self.name}: the discriminator is not fitted; fit it or load a bundle first")
        return self._normality

    def _check_channels(self, shapes: FieldShapes) -> None:
        scored, trained = (
            sum(shapes[name][0] for name in names) for names in (self._config.fields, self._training_fields)
        )
        if scored != trained:
            raise FitError(
                f"{self.name}: fields have {scored} channels but training_fields {trained}; "
                "use the same levels of teacher and student"
            )

    def _features(self, perception: Perception, row: int, names: Sequence[str]) -> torch.Tensor:
        """The structural features of one image of the batch, float32, shape (C, h, w)."""
        with torch.inference_mode():
            return structural_features(
                {name: perception.fields[name][row : row + 1].contiguous() for name in names},
                names,
                neighbourhood=self._config.neighbourhood,
                channels=self._config.channels,
            )[0]
