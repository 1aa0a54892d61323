from __future__ import annotations

from argparse import Namespace

import pytest
from support.scripts import load_script


def test_medians_of_all_rounds_give_ratio_and_cost() -> None:
    script = load_script("benchmarks/captions.py")
    options = Namespace(model="m", batch=10, batches=3, rounds=2, hourly_price=2.0)
    alone = [
        {"seconds": [1.0, 1.0], "tokens": 30.0, "prompt_tokens": 40.0},
        {"seconds": [1.0, 5.0], "tokens": 30.0, "prompt_tokens": 40.0},
    ]
    found = script.compare(alone, [[1.25, 1.25], [1.25, 9.0]], options)
    assert (found["loop_seconds_per_batch"], found["ray_data_seconds_per_batch"], found["ratio"]) == (1.0, 1.25, 0.8)
    assert found["ratio_by_round"] == [0.8, pytest.approx(3 / 5.125, abs=1e-3)]
    # 0.125 seconds an image.
    assert found["per_million_images"] == {
        "hours": pytest.approx(34.72, abs=0.01),
        "prompt_tokens": 40_000_000,
        "tokens": 30_000_000,
        "price": pytest.approx(69.44, abs=0.01),
    }
