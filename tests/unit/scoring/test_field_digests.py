from __future__ import annotations

from typing import Any

import pytest

from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring import field_digests as module
from uniad_ray.scoring.field_digests import field_digests


class Step:
    """A perceiver of which only names and lineage matter."""

    def __init__(self, name: str, needs: str | None = None, **lineage: Any) -> None:
        self.name = name
        self.needs = frozenset({needs} if needs else {})
        self.provides = frozenset({f"{name}/out"})
        self._lineage = lineage

    def perceive(self, perception: Perception) -> dict[str, Any]:
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


def digests(*steps: Step, input_size: int = 64, states: dict[str, str] | None = None) -> dict[str, str]:
    return field_digests(PerceptionPipeline(steps), input_size, states or {})


def test_a_digest_changes_with_all_that_is_behind_the_field_and_with_nothing_else() -> None:
    base = digests(Step("net", weights="w"), Step("head", "net/out"))
    assert digests(Step("head", "net/out"), Step("other"), Step("net", weights="w")).items() >= base.items()
    changed = [
        digests(Step("net", weights="v"), Step("head", "net/out")),
        digests(OtherStep("net", weights="w"), Step("head", "net/out")),
        digests(Step("net", weights="w"), Step("head", "net/out"), input_size=32),
    ]
    for other in changed:
        assert other["net/out"] != base["net/out"]
        assert other["head/out"] != base["head/out"]
    head = digests(Step("net", weights="w"), Step("head", "net/out", softness=1))
    assert head["net/out"] == base["net/out"]
    assert head["head/out"] != base["head/out"]


def test_another_version_of_the_code_is_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    base = digests(Step("net"))
    monkeypatch.setattr(module, "__version__", "99")
    assert digests(Step("net")) != base


def test_what_was_learned_counts_and_without_it_there_is_no_digest() -> None:
    steps = Step("net"), Learning("parts", "net/out"), Step("words", "parts/out")
    assert set(digests(*steps)) == {"net/out"}
    one, two = digests(*steps, states={"parts": "one"}), digests(*steps, states={"parts": "two"})
    assert set(one) == {"net/out", "parts/out", "words/out"}
    assert one["net/out"] == two["net/out"] == digests(*steps)["net/out"]
    assert one["parts/out"] != two["parts/out"]
    assert one["words/out"] != two["words/out"]
