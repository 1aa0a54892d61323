from __future__ import annotations

import pytest

from uniad_ray.perception.features.student import TrainingConfig
from uniad_ray.training.schedule import learning_rate


def rates(**options: object) -> list[float]:
    config = TrainingConfig.model_validate({"learning_rate": 0.4, "iterations": 8, **options})
    return [learning_rate(config, step) for step in range(config.iterations)]


def test_constant_rate() -> None:
    assert rates() == [0.4] * 8


def test_warm_up_is_linear() -> None:
    assert rates(warm_up=4)[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_cosine_has_half_the_rate_in_the_middle() -> None:
    found = rates(schedule="cosine", warm_up=2, iterations=8)
    assert found[2] == pytest.approx(0.4)
    assert found[5] == pytest.approx(0.2)
    assert found[2:] == sorted(found[2:], reverse=True)
    assert found[7] > 0


def test_long_warm_up_never_reaches_maximum_rate() -> None:
    assert max(rates(schedule="cosine", warm_up=16)) == pytest.approx(0.2)
