from __future__ import annotations

import pytest
from support.steps import Learning, OtherStep, Step

from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.sidecars import fingerprints as module
from uniad_ray.sidecars.fingerprints import feature_fingerprints


def digests(
    *steps: Step, image_size: tuple[int, int] = (64, 64), states: dict[str, str] | None = None
) -> dict[str, str]:
    return feature_fingerprints(PerceptionPipeline(steps), image_size, states or {})


def test_digest_covers_only_inputs_of_the_field() -> None:
    base = digests(Step("net/out", weights="w"), Step("head/out", "net/out"))
    assert digests(Step("head/out", "net/out"), Step("other/out"), Step("net/out", weights="w")).items() >= base.items()
    changed = [
        digests(Step("net/out", weights="v"), Step("head/out", "net/out")),
        digests(OtherStep("net/out", weights="w"), Step("head/out", "net/out")),
        digests(Step("net/out", weights="w"), Step("head/out", "net/out"), image_size=(64, 32)),
        digests(Step("net/out", weights="w"), Step("head/out", "net/out"), image_size=(32, 64)),
    ]
    for other in changed:
        assert other["net/out"] != base["net/out"]
        assert other["head/out"] != base["head/out"]
    head = digests(Step("net/out", weights="w"), Step("head/out", "net/out", softness=1))
    assert head["net/out"] == base["net/out"]
    assert head["head/out"] != base["head/out"]


def test_digest_depends_on_code_version(monkeypatch: pytest.MonkeyPatch) -> None:
    base = digests(Step("net/out"))
    monkeypatch.setattr(module, "__version__", "99")
    assert digests(Step("net/out")) != base


def test_digest_depends_on_learned_state() -> None:
    steps = Step("net/out"), Learning("parts/out", "net/out"), Step("words/out", "parts/out")
    assert set(digests(*steps)) == {"net/out"}
    one, two = digests(*steps, states={"parts": "one"}), digests(*steps, states={"parts": "two"})
    assert set(one) == {"net/out", "parts/out", "words/out"}
    assert one["net/out"] == two["net/out"] == digests(*steps)["net/out"]
    assert one["parts/out"] != two["parts/out"]
    assert one["words/out"] != two["words/out"]
