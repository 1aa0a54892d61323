"""The interface of every expert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception, PerceptionStream, State


@dataclass(frozen=True)
class Evidence:
    """Result of one expert for a batch of N images.

    Attributes:
        scores: float32, shape (N,), higher is more anomalous, on the expert's own scale.
        maps: float32, shape (N, h, w), on the scale of `scores`; None if the expert does not localise.
        reasons: N lists of sentences for people; lists may be empty.
        left_out: Why the expert is left out of the score of an image, by row; its values there mean nothing. Set by the
            scorer for images that lack a needed field.
    """

    scores: np.ndarray
    maps: np.ndarray | None
    reasons: Sequence[Sequence[str]]
    left_out: Mapping[int, str] = field(default_factory=dict)

    def row(self, index: int) -> Evidence:
        """The evidence of a single image."""
        return self.select([index])

    def select(self, rows: Sequence[int]) -> Evidence:
        """The evidence of some images, in the given order."""
        chosen = list(rows)
        return Evidence(
            self.scores[chosen],
            None if self.maps is None else self.maps[chosen],
            [self.reasons[row] for row in chosen],
            {place: self.left_out[row] for place, row in enumerate(chosen) if row in self.left_out},
        )


@runtime_checkable
class Expert(Protocol):
    """Learns from perceptions of normal images and scores a perception; independent of Ray, S3 and other experts.

    `ExpertClass` describes what the class of an expert must provide.

    Attributes:
        name: Name in the configuration.
        needs: Names of the fields that the expert reads.
    """

    name: str
    needs: frozenset[str]

    def fit(self, stream: PerceptionStream) -> None:
        """Learns from normal images in bounded memory; may iterate over the stream several times."""
        ...

    def score(self, perception: Perception) -> Evidence:
        """Scores one batch; the result of an image does not depend on the rest of its batch."""
        ...

    def state(self) -> State:
        """The fitted state."""
        ...


@runtime_checkable
class AlikeExpert(Expert, Protocol):
    """An expert that may learn the same as another one, which then need not be learned twice."""

    def learns_like(self, other: Expert) -> bool:
        """Whether `fit` with the same normal images gives both the same parameters."""
        ...

    def fit_like(self, fitted: Expert, stream: PerceptionStream) -> None:
        """Takes over the parameters of a fitted expert that it learns like; the result is that of `fit`."""
        ...


class ExpertClass(Protocol):
    """The class of an expert, as the loader uses it.

    Write `_: ExpertClass = MyExpert` to let mypy check a class.
    """

    @property
    def config_model(self) -> type[StrictModel]:
        """Class variable: the model of the options. Fields `map_size` and `seed` are set from the top level."""
        ...

    def __call__(self, name: str, config: Any, /) -> Expert:
        """Constructor: creates an unfitted expert with options of `config_model`."""
        ...

    def from_state(self, name: str, config: Any, state: State, /) -> Expert:
        """Class method: restores a fitted expert.

        Raises:
            BundleError: The state does not belong to such an expert.
        """
        ...
