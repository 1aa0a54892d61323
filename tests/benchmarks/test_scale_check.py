from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from support.scripts import load_script

script = load_script("benchmarks/scale_check.py")


def test_expert_takes_its_time_and_scores_by_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(script.time, "sleep", slept.append)
    images = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (10, 200, 30)])
    waiting = script.Waiting("waiting", script.WaitingConfig(seconds=0.5))

    class Batch(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.images)

    evidence = waiting.score(Batch(images=images))
    assert slept == [1.5]
    assert evidence.scores.tolist() == [10, 200, 30]
    restored = script.Waiting.from_state("waiting", script.WaitingConfig(), waiting.state())
    assert restored.score(Batch(images=images)).scores.tolist() == [10, 200, 30]


def test_times_count_from_the_end_of_the_first_quarter() -> None:
    assert script.since_first_quarter([8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == 5.0


def test_more_nodes_take_less_of_the_model_s_time() -> None:
    costs = script.Costs(decode=0.0, score=0.1, write=0.0, driver=0.0, start=0.0, chunk_images=10)
    kind = script.NodeType(cores=4, price=0.0, workers=2)
    ends = {nodes: script.commits(costs, kind, nodes, 480) for nodes in (1, 2)}
    assert len(ends[1]) == 48
    assert ends[1][-1] == pytest.approx(24.0)
    assert ends[2][-1] == pytest.approx(12.0)
