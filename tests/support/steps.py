"""Extractors that never run: only their names, needs and lineage matter."""

from __future__ import annotations

from typing import Any

from uniad_ray.perception.base import Perception, State


class Step:
    """An extractor of which only names and lineage matter."""

    def __init__(self, field: str, *needs: str, **lineage: Any) -> None:
        """Provides one field, which begins with the name of the extractor."""
        self.name = field.partition("/")[0]
        self.needs = frozenset(needs)
        self.provides = frozenset({field})
        self._lineage = lineage

    def extract(self, perception: Perception) -> dict[str, Any]:
        raise AssertionError(f"{self.name} runs on {len(perception)} images")

    def lineage(self) -> dict[str, Any]:
        return self._lineage


class OtherStep(Step):
    """The same with another class."""


class Learning(Step):
    """One that learns."""

    def state(self) -> State:
        raise AssertionError("whoever asks has the digest")

    def restore(self, state: State) -> None:
        raise AssertionError(f"nothing is restored, not even {state}")


class Trained(Learning):
    """One that is trained by a layer above."""

    training_needs = frozenset({"net/out"})
