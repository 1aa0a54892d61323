"""Extractors that never run, with only names, needs and lineage."""

from __future__ import annotations

from typing import Any

from uniad_ray.perception.base import Perception, State


class Step:
    """An extractor with only a name and lineage."""

    def __init__(self, field: str, *needs: str, **lineage: Any) -> None:
        """Provides one field, named after the extractor."""
        self.name = field.partition("/")[0]
        self.needs = frozenset(needs)
        self.provides = frozenset({field})
        self._lineage = lineage

    def extract(self, perception: Perception) -> dict[str, Any]:
        raise AssertionError(f"{self.name} runs on {len(perception)} images")

    def lineage(self) -> dict[str, Any]:
        return self._lineage


class OtherStep(Step):
    """The same extractor as another class."""


class Learning(Step):
    """An extractor that learns in `fit`."""

    def state(self) -> State:
        raise AssertionError("the digest is known and must not be computed")

    def restore(self, state: State) -> None:
        raise AssertionError(f"nothing is restored, not even {state}")


class Trained(Learning):
    """An extractor that a training job trains."""

    training_needs = frozenset({"net/out"})
