from __future__ import annotations

import os
import time

import pytest
from support.scripts import load_script

script = load_script("benchmarks/score_pipeline.py")


def test_rate_is_that_of_the_second_half() -> None:
    finished = [(0.0, 10), (100.0, 10), (101.0, 10), (103.0, 10)]
    found = script.rate(finished)
    assert found["images"] == 40
    assert found["timed_images"] == 20
    assert found["images_per_second"] == pytest.approx(20 / 3)


def test_store_that_takes_half_of_the_cores_doubles_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.os, "sched_getaffinity", lambda _: {0, 1})
    # Two cores and ten images a second: 0.2 core seconds an image, half of them the store's.
    found = script.without_store({"images": 100, "images_per_second": 10.0}, 10.0)
    assert found == {"store_seconds": 0.1, "without_store": pytest.approx(20.0)}


def test_processor_time_counts_work_and_not_sleep() -> None:
    before = script.processor_seconds(os.getpid())
    ends = time.process_time() + 0.3
    while time.process_time() < ends:
        pass
    busy = script.processor_seconds(os.getpid())
    assert 0.2 < busy - before < 1.0
    time.sleep(0.3)
    assert script.processor_seconds(os.getpid()) - busy < 0.2
