"""Plug-ins that each lack one requirement of the loader."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel
from support.learned import NoOptions, _Remembering

from uniad_ray.experts.base import Evidence
from uniad_ray.perception.base import Perception, PerceptionStream, State


class Nothing:
    """Lacks every attribute of an expert."""


class WithoutFromState:
    """Cannot be restored."""

    config_model = NoOptions

    def __init__(self, name: str, config: NoOptions) -> None:  # noqa: ARG002
        self.name, self.needs = name, frozenset({"pyramid/level2"})

    def fit(self, stream: PerceptionStream) -> None:
        raise NotImplementedError

    def score(self, perception: Perception) -> Evidence:
        raise NotImplementedError

    def state(self) -> State:
        raise NotImplementedError


class LooseOptions(BaseModel):
    """Options that accept unknown keys."""


class WithLooseOptions(WithoutFromState):
    """Has options that accept unknown keys."""

    config_model = LooseOptions  # type: ignore[assignment]

    @classmethod
    def from_state(cls, name: str, config: Any, state: State) -> Self:  # noqa: ARG003
        return cls(name, config)


class WithoutFieldsOf:
    """Cannot list its fields before its network is loaded."""

    config_model = NoOptions
    lineage = _Remembering.lineage
    extract = _Remembering.extract

    def __init__(self, name: str, config: NoOptions, device: str) -> None:  # noqa: ARG002
        self.name, self.needs, self.provides = name, frozenset[str](), frozenset({f"{name}/count"})
