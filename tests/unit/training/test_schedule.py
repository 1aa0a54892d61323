from __future__ import annotations

import pytest

from uniad_ray.perception.student import TrainingConfig
from uniad_ray.training.schedule import learning_rate


def rates(**options: object) -> list[float]:
    config = TrainingConfig.model_validate({"learning_rate": 0.4, "iterations": 8, **options})
    return [learning_rate(config, step) for step in range(config.iterations)]


def test_a_constant_rate_stays() -> None:
    assert rates() == [0.4] * 8


def test_the_warm_up_grows_linearly_to_the_highest_rate() -> None:
    assert rates(warm_up=4)[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_the_cosine_starts_at_the_highest_rate_and_has_half_of_it_in_the_middle() -> None:
    found = rates(schedule="cosine", warm_up=2, iterations=8)
    assert found[2] == pytest.approx(0.4)
    assert found[5] == pytest.approx(0.2)
    assert found[2:] == sorted(found[2:], reverse=True)
    assert found[7] > 0


def test_a_warm_up_longer_than_the_training_never_reaches_the_highest_rate() -> None:
    assert max(rates(schedule="cosine", warm_up=16)) == pytest.approx(0.2)
