"""Extractors and an expert that record their training images, to check how a fit uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch

from uniad_ray.config.base import StrictModel
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.patch.memory import PatchMemory, PatchMemoryConfig
from uniad_ray.perception.base import Perception, PerceptionStream, State


class NoOptions(StrictModel):
    """No options."""


class _Remembering:
    """Stores the row keys of its training images as its state."""

    config_model = NoOptions

    def __init__(self, name: str, config: NoOptions, device: str) -> None:  # noqa: ARG002
        self.name = name
        self.provides = self.fields_of(name, config)
        self.seen: list[str] = []

    @classmethod
    def fields_of(cls, name: str, config: NoOptions) -> frozenset[str]:  # noqa: ARG003
        return frozenset({f"{name}/count"})

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        assert self.seen, f"{self.name} extracts before it is trained"
        return {f"{self.name}/count": torch.full((len(perception), 1, 1, 1), float(len(self.seen)))}

    def state(self) -> State:
        return State(document={"seen": self.seen})

    def restore(self, state: State) -> None:
        self.seen = list(state.document["seen"])

    def lineage(self) -> dict[str, Any]:
        return {}


class Learned(_Remembering):
    """Learns in its own `fit`, from the fields of the pyramid."""

    needs = frozenset({"pyramid/level2"})

    def fit(self, stream: PerceptionStream) -> None:
        self.seen = sorted(key for perception in stream() for key in perception.row_keys)


class Trained(_Remembering):
    """Is trained by the caller of the fit."""

    needs: frozenset[str] = frozenset()
    training_needs = frozenset({"pyramid/level3"})


class TrainedPatchMemory(PatchMemory):
    """A real patch memory that waits for the trained extractor."""

    def __init__(self, name: str, config: PatchMemoryConfig) -> None:
        super().__init__(name, config)
        self.needs = self.needs | {"trained/count"}


class Brightness:
    """Scores the mean brightness, which is blind for most anomalies."""

    config_model: type[StrictModel] = NoOptions

    def __init__(self, name: str, config: Any) -> None:  # noqa: ARG002
        self.name = name
        self.needs = frozenset({"pyramid/level2"})

    def fit(self, stream: PerceptionStream) -> None:
        for _ in stream():
            pass

    def score(self, perception: Perception) -> Evidence:
        means = perception.images.mean(axis=(1, 2, 3)).astype(np.float32)
        return Evidence(means, None, [[] for _ in means])

    def state(self) -> State:
        return State()

    @classmethod
    def from_state(cls, name: str, config: Any, state: State) -> Self:  # noqa: ARG003
        return cls(name, config)


class Words:
    """Describes the count of the learned extractor in words."""

    config_model = NoOptions

    def __init__(self, name: str, config: NoOptions, device: str) -> None:  # noqa: ARG002
        self.name = name
        self.needs = frozenset({"learned/count"})
        self.provides = self.fields_of(name, config)

    @classmethod
    def fields_of(cls, name: str, config: NoOptions) -> frozenset[str]:  # noqa: ARG003
        return frozenset({f"{name}/text"})

    def extract(self, perception: Perception) -> dict[str, Sequence[str]]:
        counts = perception.fields["learned/count"].flatten().tolist()
        return {f"{self.name}/text": [f"learned from {count:.0f} images" for count in counts]}

    def lineage(self) -> dict[str, Any]:
        return {}


class Witness:
    """Scores an image by whether it was in any training data: 0 if it was not."""

    config_model = NoOptions

    def __init__(self, name: str, config: NoOptions) -> None:  # noqa: ARG002
        self.name = name
        self.needs = frozenset({"learned/count", "trained/count", "words/text"})
        self.keys: list[str] = []
        self.counts: list[float] = []
        self.text = ""

    def fit(self, stream: PerceptionStream) -> None:
        for perception in stream():
            self.keys += perception.row_keys
            self.counts = [float(perception.fields[f"{name}/count"][0]) for name in ("learned", "trained")]
            self.text = perception.texts["words/text"][0]

    def score(self, perception: Perception) -> Evidence:
        scores = np.array([float(key in self.keys) for key in perception.row_keys], dtype=np.float32)
        same = perception.texts["words/text"][0] == self.text
        return Evidence(scores + (0.0 if same else 100.0), None, [[] for _ in perception.row_keys])

    def state(self) -> State:
        return State(document={"keys": self.keys, "counts": self.counts, "text": self.text})

    @classmethod
    def from_state(cls, name: str, config: NoOptions, state: State) -> Self:
        expert = cls(name, config)
        expert.keys, expert.counts = list(state.document["keys"]), list(state.document["counts"])
        expert.text = str(state.document["text"])
        return expert
